"""Find a provider, platform or other wing by its name: one of our own files, else an entry point of another package.

To add one is to add one file, `firstword/<kind>/<name>.py`, that holds an object named after the kind
(`provider`, `platform`), or an entry point `<name>` in the group `firstword.<kind>`. There is no table to edit.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from .errors import ConfigError


def known(kind: str) -> list[str]:
    """Return the names that `load` finds for a kind (`providers`, `platforms`), sorted."""
    return sorted(_ours(kind) | set(_entry_points(kind)))


def ours(kind: str) -> dict[str, Any]:
    """Return the objects of our own files of a kind, by their names."""
    return {name: _object(kind, name) for name in sorted(_ours(kind))}


def load(kind: str, name: str) -> Any:
    """Return the object `name` of a kind. Raises ConfigError that names what is known."""
    if name in _ours(kind):
        return _object(kind, name)
    others = _entry_points(kind)
    if name in others:
        return others[name].load()
    # What is long or has digits may be a key that was put into the wrong place.
    shown = repr(name) if len(name) <= 20 and not any(map(str.isdigit, name)) else "of this name"
    raise ConfigError(f"There is no {kind.removesuffix('s')} {shown}.", hint=f"one of: {', '.join(known(kind))}")


def _object(kind: str, name: str) -> Any:
    return getattr(importlib.import_module(f"firstword.{kind}.{name}"), kind.removesuffix("s"))


def _ours(kind: str) -> set[str]:
    package = importlib.import_module(f"firstword.{kind}")
    names = {module.name for module in pkgutil.iter_modules(package.__path__)}
    # A file whose name starts with an underscore is a part of its neighbours, not a wing.
    return {name for name in names if not name.startswith("_")}


def _entry_points(kind: str) -> dict[str, Any]:
    from importlib.metadata import entry_points  # slow to import, and needed by an App only

    return {point.name: point for point in entry_points(group=f"firstword.{kind}")}
