"""Which Agora project is meant, and what proves that it is ours: from the environment, and a `.env.local` beside it.

The names are those of Agora's own starter scripts. The environment wins over the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..agents import AREAS
from ..errors import ConfigError

FILE = ".env.local"
MAX_FILE = 64 * 1024  # bytes

# Where each part of an account is written down, the name that we tell people first.
NAMES = {
    "app_id": ("AGORA_APP_ID",),
    "certificate": ("AGORA_APP_CERT", "AGORA_APP_CERTIFICATE"),
    "key": ("AGORA_BASIC_KEY",),
    "secret": ("AGORA_BASIC_SECRET",),
    "pipeline_id": ("AGORA_PIPELINE_ID",),
    "channel": ("AGORA_CHANNEL_NAME",),
    "area": ("AGORA_AREA",),
    "base_url": ("AGORA_AGENTS_API_BASE_URL",),
}
ENVIRONMENT_ONLY = frozenset({"base_url"})  # a folder of somebody else's must not decide who gets our key


@dataclass(frozen=True, slots=True)
class Account:
    """An Agora project. `key` and `secret` are its customer's for the REST API; without them a token is made.

    area: "global" or "cn" (mainland China). base_url: another host for the API. source: the file that was read.
    """

    app_id: str
    certificate: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    pipeline_id: str | None = None
    channel: str | None = None
    area: str = "global"
    base_url: str | None = None
    source: Path | None = None

    @property
    def is_basic(self) -> bool:
        """True when the customer's key goes along with each request, False when a token does."""
        return bool(self.key and self.secret)

    @property
    def secrets(self) -> list[str]:
        """What must never be shown."""
        return [each for each in (self.certificate, self.key, self.secret) if each]


def read_account(environment: Mapping[str, str], folder: Path, **given: str | None) -> Account:
    """Return the account that the environment and the folder's `.env.local` name; what is `given` wins over both.

    Raises ConfigError that names what is missing, and where it is found.
    """
    path = folder / FILE
    in_file = _read_file(path) if path.is_file() else {}
    found: dict[str, str] = {}
    for part, names in NAMES.items():
        said = [given.get(part), *(environment.get(name) for name in names)]
        if part not in ENVIRONMENT_ONLY:
            said += [in_file.get(name) for name in names]
        value = next((each.strip() for each in said if each and each.strip()), None)
        if value is not None:
            found[part] = value
    found["area"] = found.get("area", "global").lower()
    _check(found, path, is_there=bool(in_file))
    return Account(**found, source=path if in_file else None)


def _check(found: Mapping[str, str], path: Path, *, is_there: bool) -> None:
    where = f"the environment or {FILE}" if is_there else f"the environment, and there is no {FILE} in {path.parent}"
    if "app_id" not in found:
        raise ConfigError(
            f"AGORA_APP_ID is not set in {where}.", hint="it is the App ID of your project in Agora's console"
        )
    if found["area"] not in AREAS:
        raise ConfigError(
            "AGORA_AREA is neither `global` nor `cn`.", hint="cn is mainland China; everything else is global"
        )
    if ("key" in found) != ("secret" in found):
        missing = "AGORA_BASIC_SECRET" if "key" in found else "AGORA_BASIC_KEY"
        raise ConfigError(f"{missing} is not set in {where}.", hint="both stand under `RESTful API` in the console")
    if "key" not in found and "certificate" not in found:
        raise ConfigError(
            f"Neither AGORA_APP_CERT nor AGORA_BASIC_KEY and AGORA_BASIC_SECRET are set in {where}.",
            hint="AGORA_APP_CERT, the project's primary certificate, is enough",
        )


def _read_file(path: Path) -> dict[str, str]:
    """Return what the lines `NAME=value` of a file say; a value may stand in quotes, and `export` before a name."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path} cannot be read as text.", hint="save it as UTF-8, or remove it") from None
    if len(data) > MAX_FILE:
        raise ConfigError(f"{path} is longer than {MAX_FILE} bytes.", hint="is it the right file?")
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            found[name.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    """Return a value without its quotes, or without the comment behind it."""
    quote = value[:1]
    if quote in ("'", '"') and quote in value[1:]:
        return value[1 : value.index(quote, 1)]
    return "" if quote == "#" else value.partition(" #")[0].rstrip()
