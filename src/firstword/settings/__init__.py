"""What can be set from outside: environment variables.

Only `written` reads this; every other room takes plain arguments. Empty means unset. `brain.py` has what an App takes
as well, `running.py` what is for the operator alone.
"""

from __future__ import annotations

import difflib
import os
import urllib.request
from typing import Any

from pydantic import AliasChoices, ValidationError
from pydantic_settings import SettingsConfigDict

from ..errors import ConfigError
from .brain import Brain
from .running import Running


class Settings(Running, Brain):
    """All of them, the brain's first."""

    model_config = SettingsConfigDict(
        env_prefix="FIRSTWORD_",
        env_ignore_empty=True,
        extra="ignore",
        str_strip_whitespace=True,  # a key that was read from a file ends with a line break
        allow_inf_nan=False,
    )


# Variables that another command than `serve` reads: they may stand in the same shell.
OF_COMMANDS = ("FIRSTWORD_CHECK_KEY",)


def load(**given: Any) -> Settings:
    """Return the settings, those `given` (not None, not empty) first. Raises ConfigError that names each wrong one."""
    _refuse_unknown()
    try:
        return Settings(**{_alias(name): value for name, value in given.items() if value not in (None, "")})
    except ValidationError as error:
        # Never pydantic's own text: it repeats the value, which may be a key.
        wrong: dict[str, list[str]] = {}  # what is said of each name; of a union there is one for each of its types
        for each in error.errors():
            wrong.setdefault(_env_name(str(each["loc"][0])), []).append(each["msg"].lower())
        told = "; ".join(f"{name}: {', or '.join(said)}" for name, said in wrong.items())
        raise ConfigError(f"A setting is wrong: {told}.", hint="see the configuration table in the README") from None


def _alias(field: str) -> str:
    """Return the name of the trade that a field has, else its own."""
    alias = Settings.model_fields[field].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else field


def _env_name(field: str) -> str:
    return field if field.isupper() else f"FIRSTWORD_{field.upper()}"


def _refuse_unknown() -> None:
    """Raise ConfigError for a FIRSTWORD_ variable that nobody reads: a misspelt gate key would open the door."""
    known = {_env_name(_alias(field)) for field in Settings.model_fields}
    for name in os.environ:
        if name.startswith("FIRSTWORD_") and name not in known and name not in OF_COMMANDS:
            near = difflib.get_close_matches(name, sorted(known), 1)
            hint = f"did you mean {near[0]}?" if near else "see the configuration table in the README"
            raise ConfigError(f"There is no setting {name}.", hint=hint)


def key_of(provider: str) -> str | None:
    """Return the key of a provider as its own tools read it, `GROQ_API_KEY` for groq; None when there is none."""
    return os.environ.get(f"{provider.upper().replace('-', '_')}_API_KEY", "").strip() or None


def proxy_url(host: str) -> str | None:
    """Return the proxy that `HTTPS_PROXY` and `NO_PROXY` name for an https host, as every Unix tool reads them."""
    if urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get("https") or proxies.get("all")
