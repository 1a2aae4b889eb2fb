"""Build the Dockerfile for real, without a registry and without a daemon: buildah, and a base made of this Python.

The stand-in for the base image has a shell and the Python that runs the tests, with all that they load, and nothing
else: what the Dockerfile needs beyond that, the image would have to bring. Needs root, buildah and the registry.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

BASE = "localhost/python-of-a-test"
IMAGE = "localhost/firstword-of-a-test"
MINE = "localhost/my-brain-of-a-test"
# Libraries that wheels are built against, or that are loaded by name.
IN_EVERY_IMAGE = ("pthread", "dl", "rt", "util", "nss_files", "nss_dns", "resolv", "gcc_s", "stdc++")
LEFT_OUT = shutil.ignore_patterns(
    "test", "tests", "idlelib", "tkinter", "turtledemo", "config-*", "__pycache__", "site-packages", "dist-packages"
)


class Built:
    """An image that was built: its root as a folder, and how it says that it is run."""

    def __init__(self, root: Path, config: dict[str, Any]) -> None:
        self.root = root
        self.user: str = config["User"]
        self.folder: str = config["WorkingDir"]
        self.environment = dict(line.split("=", 1) for line in config["Env"])
        self.command: list[str] = [*config["Entrypoint"], *config["Cmd"]]
        self.health: list[str] = config["Healthcheck"]["Test"]
        self.stop_signal: str = config["StopSignal"]
        self.ports = set(config["ExposedPorts"])
        self.labels: dict[str, str] = config["Labels"]

    def as_run(self, command: list[str]) -> list[str]:
        """Return how a command is run within it: as its user, its root read-only, and a temporary /tmp."""
        script = (
            'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && mount -t tmpfs tmpfs "$1/tmp"'
            ' && exec chroot --userspec="$2" "$1" /bin/sh -c \'cd "$0" && exec "$@"\' "$3" "${@:4}"'
        )
        inner = [str(self.root), self.user, self.folder, *command]
        return ["unshare", "--mount", "bash", "-c", script, "run", *inner]


class Storage:
    """A place of buildah's own, that goes with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._driver = "overlay"
        try:
            self.run("from", "scratch")
        except AssertionError:
            self._driver = "vfs"  # works everywhere, and copies everything at each step

    def close(self) -> None:
        """Let go of what is mounted."""
        self.run("umount", "--all")
        self.run("rm", "--all")

    def run(self, *words: str) -> str:
        """Run buildah and return what it prints; what it complains of stands in the error."""
        place = [f"--storage-driver={self._driver}", f"--root={self._folder}/store", f"--runroot={self._folder}/run"]
        done = subprocess.run(["buildah", *place, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def build(self, dockerfile: Path, base: Path) -> Built:
        """Build a Dockerfile, on the base in that folder instead of the one that it names."""
        text, count = re.subn(r"(?m)^FROM \S+@sha256:\w{64} AS", f"FROM {BASE} AS", dockerfile.read_text("utf-8"))
        assert count == 1
        changed = base.with_name("Dockerfile")
        changed.write_text(text)
        container = self.run("from", "scratch")
        self.run("copy", "--quiet", container, str(base), "/")
        self.run("commit", "--quiet", container, BASE)
        self._bud(changed, dockerfile.parent, IMAGE)
        return self._built(IMAGE)

    def build_upon(self, text: str, folder: Path) -> Built:
        """Build a user's own Dockerfile, which names the base by its tag and ours as `firstword`, in his folder."""
        text = re.sub(r"(?m)^FROM \S+ AS", f"FROM {BASE} AS", text).replace("FROM firstword\n", f"FROM {IMAGE}\n")
        (folder / "Dockerfile").write_text(text)
        self._bud(folder / "Dockerfile", folder, MINE)
        return self._built(MINE)

    def _built(self, name: str) -> Built:
        config = json.loads(self.run("inspect", "--type=image", name))["Docker"]["config"]
        return Built(Path(self.run("mount", self.run("from", "--pull-never", name))), config)

    def _bud(self, dockerfile: Path, folder: Path, name: str) -> None:
        registry = [f"--volume={path}:{path}:ro" for path in _settings_of_pip()]
        options = ["--isolation=chroot", "--network=host", "--pull-never", "--format=docker", *registry]
        self.run("bud", *options, f"--file={dockerfile}", f"--tag={name}", str(folder))


def make_base(folder: Path) -> Path:
    """Make the root of an image with this Python in /usr/local, as in Python's own images."""
    version = sysconfig.get_python_version()
    local, library = folder / "usr" / "local", Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, local / "lib" / library.name, symlinks=True, ignore=LEFT_OUT)
    _copy(Path(sys.base_prefix) / "bin" / f"python{version}", local / "bin" / f"python{version}")
    for link in ("python", "python3"):
        (local / "bin" / link).symlink_to(f"python{version}")
    for tool in ("bash", "sh", "id"):
        _copy(Path(shutil.which(tool) or ""), folder / "bin" / tool)
    for path in [*local.rglob("*.so*"), *(local / "bin").iterdir(), *(folder / "bin").iterdir()]:
        for needed in map(Path, re.findall(r"(/\S+) \(0x", _said_by("ldd", str(path)))):
            is_python = needed.is_relative_to(sys.base_prefix)
            _copy(needed, local / "lib" / needed.name if is_python else folder / str(needed).lstrip("/"))
    [libc] = folder.rglob("libc.so.6")
    for name in IN_EVERY_IMAGE:
        for part in (Path("/") / libc.relative_to(folder)).parent.glob(f"lib{name}.so.?"):
            _copy(part, libc.parent / part.name)
    _copy(Path("/etc/ssl/certs/ca-certificates.crt"), folder / "etc/ssl/certs/ca-certificates.crt")
    (folder / "etc/ld.so.conf").write_text("/usr/local/lib\n")
    subprocess.run(["ldconfig", "-r", str(folder)], check=True)
    for empty in ("tmp", "proc", "dev"):
        (folder / empty).mkdir()
    (folder / "tmp").chmod(0o1777)
    subprocess.run(["chroot", str(folder), "/usr/local/bin/python", "-m", "ensurepip"], check=True, capture_output=True)
    (local / "bin" / "pip").symlink_to("pip3")
    return folder


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _said_by(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def _settings_of_pip() -> list[str]:
    """Return the files by which this machine's pip finds its registry."""
    named = os.environ.get("PIP_CONFIG_FILE")
    return [path for path in ("/etc/pip.conf", named) if path and Path(path).exists()]
