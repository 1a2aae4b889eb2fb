"""The image of the Dockerfile, built and run: as nobody, on a root that cannot be written, and told to stop.

`make image-check` runs these; they build for a minute, and need root, buildah and the package registry.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from caller import turn
from command import Process
from conftest import ROOT
from image import Built, Storage, make_base

from firstword.testing import Upstream, script

pytestmark = [
    pytest.mark.skipif("CHECK_IMAGE" not in os.environ, reason="`make image-check` builds the image for these"),
    pytest.mark.timeout(300),
]
Run = Callable[..., Process]
BRAIN = """
from firstword import App
from sortedcontainers import SortedList

app = App()


@app.model("mine")
async def mine(turn):
    return "sorted: " + " ".join(SortedList("21"))
"""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """Where images are kept."""
    kept = Storage(tmp_path_factory.mktemp("storage"))
    yield kept
    kept.close()


@pytest.fixture(scope="module")
def image(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The image, as it is built from this repository."""
    return storage.build(ROOT / "Dockerfile", make_base(tmp_path_factory.mktemp("base") / "base"))


@pytest.fixture
def port() -> str:
    """A port that was free a moment ago: the image's own may be taken on this machine."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


@pytest.fixture
def run(image: Built, upstream: Upstream, port: str) -> Iterator[Run]:
    """Start a command of the image, its own without words, in front of the scripted model."""
    running: list[Process] = []

    def start(*words: str) -> Process:
        told = {**image.environment, "LLM_BASE_URL": upstream.base_url, "FIRSTWORD_PORT": port}
        running.append(Process(image.as_run(list(words) or image.command), Path("/"), told))
        return running[-1]

    yield start
    for process in running:
        process.kill()


async def test_a_stranger_runs_the_image_as_it_is(image: Built, run: Run, port: str) -> None:
    """`docker run --read-only firstword`: it answers as a user that is nobody, and is found healthy."""
    process = run()
    heard = await process.caller().says("Hello there.")

    assert (heard.text, heard.done) == ("Hello there.", True)
    assert image.user == "10001:10001" and image.ports == {"8000/tcp"}
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "Uid:\t10001\t10001\t10001\t10001" in status and "Gid:\t10001\t10001\t10001\t10001" in status
    assert image.health[0] == "CMD"
    assert run(*image.health[1:]).ends() == 0


async def test_several_workers_need_no_more_to_write_than_tmp(run: Run) -> None:
    """`docker run --read-only --tmpfs /tmp firstword serve --workers 2`."""
    process = run("firstword", "serve", "--workers", "2")
    process.says(r"(?s)Application startup complete.*Application startup complete")
    assert (await process.caller().says("Hello there.")).text == "Hello there."
    process.tell(signal.SIGTERM)
    assert process.ends() in (0, -signal.SIGTERM)
    assert "Traceback" not in process.output


def test_a_server_that_is_gone_is_not_healthy(image: Built, run: Run) -> None:
    """Nothing listens on the port."""
    assert run(*image.health[1:]).ends() == 1


async def test_a_turn_in_progress_is_heard_to_its_end_when_the_container_is_stopped(
    image: Built, run: Run, upstream: Upstream
) -> None:
    """`docker stop`, while a caller listens: the command is the process that gets the signal."""
    process = run()
    slowly = turn(script=script.events(script.says("One two", every=0.5)))
    async with process.caller().dials(slowly) as call:
        await call.hears_word("One")
        process.tell(signal.Signals[image.stop_signal])
        async for _ in call.listens():
            pass
    assert (call.heard.text, call.heard.done, call.heard.whole) == ("One two", True, True)
    assert process.ends(10) in (0, -signal.SIGTERM)


def test_nothing_is_left_of_what_built_it(image: Built) -> None:
    """An intruder looks for tools, and an auditor for what is in it and not in the lock."""
    locked = (ROOT / "locks" / "image.txt").read_text("utf-8")
    packages = list((image.root / "opt/firstword").rglob("*.dist-info"))
    names = {path.name.split("-")[0].replace("_", "-").lower() for path in packages}
    assert "uvicorn" in names and "firstword" in names
    assert {name for name in names - {"firstword"} if f"\n{name}==" not in f"\n{locked}"} == set()
    assert names.isdisjoint({"pip", "setuptools", "wheel", "flit-core"})
    assert not list((image.root / "usr/local/lib").rglob("pip/__init__.py"))
    assert not (image.root / "root" / ".cache").exists() and not list(image.root.glob("build/*"))
    assert [path.name for path in (image.root / "app").iterdir()] == ["custom_llm.py"]


def test_every_file_of_ours_is_there_and_compiled(image: Built) -> None:
    """A start must not compile, and must not look whether a source is newer: the root cannot be written."""
    [package] = (image.root / "opt/firstword/lib").glob("python3.*/site-packages/firstword")
    mine = {path.relative_to(ROOT / "src/firstword") for path in (ROOT / "src/firstword").rglob("*.py")}
    assert {path.relative_to(package) for path in package.rglob("*.py")} == mine
    for path in mine:
        [compiled] = (package / path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01, path  # by its hash, and never checked


def test_the_root_cannot_be_written(image: Built, run: Run) -> None:
    """What these tests call read-only is: else the others prove nothing."""
    told = run("python", "-c", "open('/tmp/a', 'w'); open('/app/a', 'w')")
    assert told.ends() == 1 and "Read-only file system: '/app/a'" in told.output


def test_nobody_can_become_root_in_it(image: Built) -> None:
    """No program in it gives its caller another user's rights."""
    found = subprocess.run(["find", str(image.root), "-xdev", "-perm", "/6000", "-type", "f"], capture_output=True)
    assert (found.returncode, found.stdout) == (0, b"")


async def test_an_image_of_a_users_own_serves_his_file_with_his_packages(
    image: Built, storage: Storage, tmp_path: Path, upstream: Upstream, port: str
) -> None:
    """The Dockerfile that docs/deploying.md shows, word for word, with a package that the image has not."""
    page = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    locked = (ROOT / "locks" / "dev.txt").read_text("utf-8")
    (tmp_path / "requirements.txt").write_text(re.findall(r"^sortedcontainers==(?:.*\\\n)+.*", locked, re.MULTILINE)[0])
    (tmp_path / "custom_llm.py").write_text(BRAIN)
    mine = storage.build_upon(re.findall(r"```dockerfile\n(.*?)```", page, re.DOTALL)[0], tmp_path)
    told = {**mine.environment, "LLM_BASE_URL": upstream.base_url, "FIRSTWORD_PORT": port}
    process = Process(mine.as_run(mine.command), Path("/"), told)
    try:
        assert (await process.caller().says(model="mine")).text == "sorted: 1 2"
    finally:
        process.kill()
    assert (mine.user, mine.command) == (image.user, image.command)
