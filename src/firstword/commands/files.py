"""The App of a Python file that a command was given."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from ..app import App
from ..errors import ConfigError

DEFAULT_FILE = Path("custom_llm.py")


def load(file: Path) -> App:
    """Return the `app` of a Python file. Raises ConfigError when there is none."""
    if not file.is_file():
        raise ConfigError(f"There is no file {str(file)!r}.", hint="name the file of your App, as custom_llm.py")
    spec = importlib.util.spec_from_file_location(file.stem, file.resolve())
    if spec is None or spec.loader is None:
        raise ConfigError(f"{str(file)!r} is not a Python file.", hint="name the file of your App, as custom_llm.py")
    sys.path.insert(0, str(file.resolve().parent))  # the file may import its neighbours
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    app: Any = getattr(module, "app", None)
    if not isinstance(app, App):
        raise ConfigError(f"{str(file)!r} has no `app`.", hint="write `app = App()` in it")
    return app
