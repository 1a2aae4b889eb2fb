"""Which agent was started last, kept in a file: so that `firstword agent stop` needs no id.

The file lies where programs keep their state (XDG), and only its owner may read it. It holds no secret. One agent is
kept for each project and channel. A file that cannot be read is as good as none.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

MAX_KEPT = 50  # agents; the oldest go first


@dataclass(frozen=True, slots=True)
class Started:
    """An agent that was started here: its id, its uid in the channel, where, and when, in seconds since 1970."""

    app_id: str
    channel: str
    agent_id: str
    uid: int
    area: str
    at: float


class Remembered:
    """The agents of a file, the newest last."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Remembered:
        """Return those of the user: in `$XDG_STATE_HOME`, else `~/.local/state`."""
        home = environment.get("XDG_STATE_HOME") or ""
        root = Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "state"
        return cls(root / "firstword" / "agents.json")

    def read(self) -> list[Started]:
        """Return what is in the file; nothing when it is not there or not ours."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=list[Started])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return []

    def find(self, app_id: str, channel: str | None) -> Started | None:
        """Return the agent of a project that was started last, in this channel if there is one."""
        ours = [each for each in self.read() if each.app_id == app_id and channel in (None, each.channel)]
        return ours[-1] if ours else None

    def keep(self, started: Started) -> bool:
        """Write an agent down in place of the one before it; False when the file cannot be written."""
        others = [each for each in self.read() if (each.app_id, each.channel) != (started.app_id, started.channel)]
        return self._write([*others, started][-MAX_KEPT:])

    def forget(self, agent_id: str) -> None:
        """Strike out an agent that is gone."""
        kept = self.read()
        left = [each for each in kept if each.agent_id != agent_id]
        if len(left) < len(kept):
            self._write(left)

    def _write(self, kept: list[Started]) -> bool:
        """Write all anew beside the file, then put it in its place: a reader sees the old one or the new one."""
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(dir=folder)  # 0600 from the first byte
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(msgspec.json.encode(kept))
                Path(name).replace(self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError:
            return False
        return True
