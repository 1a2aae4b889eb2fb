"""Secrets that are planted everywhere, and found again in whatever way they were written down.

To plant what a new setting holds, add its line to `SETTINGS`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote


class Canary(str):
    """A text that stands nowhere else. It holds what JSON, URLs and shells escape, and a core that nobody escapes."""

    core: str

    @classmethod
    def of(cls, name: str) -> Canary:
        """Return the canary of this name, the same in every process."""
        core = "c4" + hashlib.sha256(name.encode()).hexdigest()[:22]
        made = cls(f'sk-{core}/+=%"~')
        made.core = core
        return made

    def forms(self) -> Iterator[bytes]:
        """Yield what a text holds that gives it away: a good part of it, its hex, its base64 at any place, its hash."""
        core = self.core.encode()
        yield core[:12]
        yield core.hex().encode()
        for shift in range(3):
            # Signs that hold nothing of what stands before and behind.
            yield base64.b64encode(b"x" * shift + core)[4 if shift else 0 : 28]
        for name in ("md5", "sha1", "sha256"):
            digest = hashlib.new(name, self.encode(), usedforsecurity=False)
            yield digest.hexdigest().encode()
            yield base64.b64encode(digest.digest())[:20]

    def stands_in(self, data: bytes) -> bool:
        """Return whether `data` gives it away."""
        lower = data.lower()
        return any(form.lower() in lower for form in self.forms())


# What a secret setting is set to, by the field of Settings: the variable, and its text with the canary in it.
SETTINGS: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "api_key": ("LLM_API_KEY", str),
    "keys": ("FIRSTWORD_KEYS", str),
    "agora_basic_key": ("AGORA_BASIC_KEY", str),
    "agora_basic_secret": ("AGORA_BASIC_SECRET", str),
    "agora_webhook_secret": ("FIRSTWORD_AGORA_WEBHOOK_SECRET", str),
    "voice_api_key": ("FIRSTWORD_VOICE_API_KEY", str),
    "jwt_secret": ("FIRSTWORD_JWT_SECRET", lambda text: text * 2),
    "operator_key": ("FIRSTWORD_OPERATOR_KEY", str),
    "url_secret": ("FIRSTWORD_URL_SECRET", lambda text: text * 2),
    "redis_url": ("FIRSTWORD_REDIS_URL", lambda text: f"redis://:{quote(text, safe='')}@127.0.0.1:1"),
}

# Secrets that are no setting of ours: where else an operator, a tool or a caller brings one.
OTHERS = ("model key", "proxy password", "tool key", "mcp key", "wrong key", "callers own key", "signature")
# What people say and are: never in a log, a metric or a page; a reply may of course hold it.
WORDS = ("prompt", "transcript", "tool argument", "tool result", "session", "phone number", "image", "user", "event")

SECRETS: Mapping[str, Canary] = {name: Canary.of(name) for name in (*SETTINGS, *OTHERS)}
SAID: Mapping[str, Canary] = {name: Canary.of(name) for name in WORDS}
ALL: Mapping[str, Canary] = {**SECRETS, **SAID}


def environment() -> dict[str, str]:
    """Return the variables that plant all settings."""
    return {name: write(SECRETS[field]) for field, (name, write) in SETTINGS.items()}


def found(data: bytes, canaries: Mapping[str, Canary]) -> list[str]:
    """Return the names of those that `data` gives away."""
    return [name for name, canary in canaries.items() if canary.stands_in(data)]
