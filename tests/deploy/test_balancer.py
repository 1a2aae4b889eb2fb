"""deploy/nginx.conf in front of two real servers: words go on at once, and a server that stops costs no turn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from caller import Caller, turn
from command import Process, wait_for
from conftest import ROOT
from shipped import documents

from firstword.testing import Upstream, script

CONF = (ROOT / "deploy" / "nginx.conf").read_text("utf-8")
PAGE = (ROOT / "docs" / "deploying.md").read_text("utf-8")
FIRSTWORD = str(Path(sys.executable).parent / "firstword")
# Debian has it where only root's PATH leads.
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CADDY = shutil.which("caddy")
pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine")


def named(outer: str) -> str:
    """Return the shipped file with its lines for what stands before it, which are there to be used."""
    return re.sub(r"^( *)# ((set_real_ip_from|real_ip_\w+) .*;)$", r"\1\2", CONF, flags=re.MULTILINE).replace(
        "192.0.2.1", outer
    )


@contextlib.contextmanager
def a_machine_that_is_gone() -> Iterator[int]:
    """A port from which nothing comes back: the queue of its listener is full, and nobody empties it."""
    with socket.socket() as silent, contextlib.ExitStack() as full:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for _ in range(3):
            waiting = full.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(silent.getsockname())
        yield silent.getsockname()[1]


class Fleet:
    """Two servers, and nginx before them, with the shipped configuration on other ports and folders."""

    def __init__(
        self, folder: Path, upstream: Upstream, gone: int | None = None, outer: str | None = None, **settings: str
    ) -> None:
        """Start it all. gone: a port that is asked instead of the first server's. outer: who stands before nginx."""
        self._folder = folder
        told = {**os.environ, "LLM_BASE_URL": upstream.base_url, "PYTHONUNBUFFERED": "1", **settings}
        command = [FIRSTWORD, "serve", "--host", "127.0.0.1", "--port", "0"]
        self.servers = [Process(command, folder, told) for _ in range(2)]
        ports = [int(server.caller().url.rsplit(":", 1)[1]) for server in self.servers]
        ports[0] = gone or ports[0]
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        (folder / "nginx.conf").write_text(self._placed(ports, port, outer))
        assert NGINX
        own = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")  # else its workers may not write here
        self.balancer = Process([NGINX, "-g", own, "-c", str(folder / "nginx.conf")], folder, dict(os.environ))
        self.caller = Caller(f"http://127.0.0.1:{port}")

    def _placed(self, ports: list[int], port: int, outer: str | None) -> str:
        """Return the shipped file, with what belongs to a container changed."""
        text = CONF if outer is None else named(outer)
        text = text.replace("/tmp/", f"{self._folder}/").replace("listen 8080", f"listen 127.0.0.1:{port}")
        for number, each in enumerate(ports, 1):
            # `resolve` asks Docker's name server, and is newer than Debian's nginx.
            text = text.replace(f"server firstword-{number}:8000 resolve", f"server 127.0.0.1:{each}")
        text = text.replace("error_log /dev/stderr", f"error_log {self._folder}/error.log")
        assert "firstword-" not in text and "8080" not in text
        return re.sub(r"^ *resolver .*$|^worker_rlimit_nofile .*$", "", text, flags=re.MULTILINE)

    def stop(self) -> None:
        """End all of it."""
        for process in [*self.servers, self.balancer]:
            process.kill()


@pytest.fixture
def fleet(tmp_path: Path, upstream: Upstream) -> Iterator[Fleet]:
    """Two servers behind nginx, which answers."""
    made = Fleet(tmp_path, upstream)
    wait_for(int(made.caller.url.rsplit(":", 1)[1]))
    yield made
    made.stop()


def slowly(*words: str) -> dict[str, Any]:
    """Return a turn in which the model pauses before each word."""
    return turn(script=script.events(script.says(" ".join(words), every=0.2)))


async def shows_nobody_what_is_inside(caller: Caller) -> None:
    """Assert that whoever comes by the balancer finds the server, and neither its numbers nor its turns."""
    for path in ("/metrics", "/metrics/", "//metrics", "/%6detrics?x", "/console", "/console/", "/console/turns"):
        assert (await caller.hears(path=path, method="GET")).status == 404, path
    assert (await caller.hears(path="/health", method="GET")).status == 200


async def test_each_word_goes_on_at_once(fleet: Fleet) -> None:
    """A balancer that collects makes a caller wait for the whole answer."""
    heard = await fleet.caller.hears(slowly("One", "two", "three"))
    assert (heard.text, heard.done, heard.whole) == ("One two three", True, True)
    times = [at for at, data in heard.reads if b'"content"' in data]
    assert len(times) >= 3 and times[-1] - times[0] > 0.3
    assert "content-encoding" not in heard.headers


async def test_a_server_that_is_told_to_stop_costs_no_turn(fleet: Fleet) -> None:
    """A rolling restart: the turns in progress end, and those that come meanwhile are the other server's."""
    async with (
        fleet.caller.dials(slowly("One", "two", "three")) as one,
        fleet.caller.dials(slowly("One", "two", "three")) as other,
    ):
        await one.hears_word("One")
        await other.hears_word("One")
        fleet.servers[0].tell(signal.SIGTERM)
        for _ in range(10):
            assert (await fleet.caller.says("Hello there.")).text == "Hello there."
        for call in (one, other):
            async for _ in call.listens():
                pass
            assert (call.heard.text, call.heard.done) == ("One two three", True)
    fleet.servers[0].ends()
    for _ in range(10):
        assert (await fleet.caller.says("Hello again.")).text == "Hello again."


async def test_a_server_that_dies_takes_no_later_turn_with_it(fleet: Fleet) -> None:
    """Killed between turns, while the balancer still has connections to it."""
    for _ in range(4):
        await fleet.caller.says()
    fleet.servers[1].kill()
    for _ in range(10):
        assert (await fleet.caller.says("Hello again.")).text == "Hello again."


async def test_a_server_that_dies_within_a_turn_does_not_have_it_asked_twice(
    fleet: Fleet, upstream: Upstream, marker: str
) -> None:
    """Killed before its first word: what it has done by then, as a tool that commits something, is not done again."""
    steps = script.events(script.wait(), script.role(), script.text("One"))
    asked = asyncio.create_task(fleet.caller.hears(turn(script=steps, user=marker)))
    await upstream.wait_asked(marker)
    for server in fleet.servers:
        told = await server.caller().hears(path="/metrics", method="GET")
        if b"\nfirstword_turns_in_progress 1" in told.body:
            server.kill()
    assert (await asked).status == 502
    assert len(upstream.seen(marker)) == 1
    assert (await fleet.caller.says("Hello again.")).text == "Hello again."


async def test_a_turn_that_is_refused_closes_no_server_to_others(fleet: Fleet, upstream: Upstream, marker: str) -> None:
    """A provider is overloaded and says 503: its turn is asked once, and the next ones are answered."""
    overloaded = script.refuses(503, headers={"x-should-retry": "false"})
    for count in range(1, 4):
        refused = await fleet.caller.hears(turn(script=overloaded, user=marker))
        assert refused.status == 503 and refused.headers["x-should-retry"] == "false"
        assert len(upstream.seen(marker)) == count
        for _ in range(4):
            assert (await fleet.caller.says("Hello again.")).text == "Hello again."


async def test_a_stranger_closes_no_server_to_others(tmp_path: Path, upstream: Upstream) -> None:
    """Bodies that are refused before they were read: to the balancer it looks as if the server had failed."""
    fleet = Fleet(tmp_path, upstream, FIRSTWORD_KEYS="a-key-of-a-test", FIRSTWORD_MAX_BODY="1000000")
    try:
        wait_for(int(fleet.caller.url.rsplit(":", 1)[1]))
        headers = {"authorization": "Bearer a-key-of-a-test"}
        statuses = set()
        for _ in range(8):
            statuses.add((await fleet.caller.says(padding="x" * 5_000_000, headers=headers)).status)
            assert (await fleet.caller.says("Hello again.", headers=headers)).text == "Hello again."
        assert statuses <= {413, 502}
    finally:
        fleet.stop()


async def test_a_server_whose_machine_is_gone_costs_no_turn(tmp_path: Path, upstream: Upstream) -> None:
    """Nothing comes back from it, not even that nobody listens."""
    with a_machine_that_is_gone() as port:
        fleet = Fleet(tmp_path, upstream, gone=port)
        try:
            wait_for(int(fleet.caller.url.rsplit(":", 1)[1]))
            for _ in range(6):
                began = time.monotonic()
                heard = await fleet.caller.says("Hello again.")
                assert heard.text == "Hello again." and heard.reads[0][0] - began < 1.5
        finally:
            fleet.stop()


async def test_a_caller_who_hangs_up_stops_the_model(fleet: Fleet, upstream: Upstream, marker: str) -> None:
    """An interruption must reach the model through the balancer."""
    steps = script.events(script.role(), script.text("One"), script.wait())
    async with fleet.caller.dials(turn(script=steps, user=marker)) as call:
        await call.hears_word("One")
    [record] = await upstream.wait_closed(marker)
    assert record.closed_by == "peer"


async def test_a_long_conversation_and_a_key_come_through_and_the_metrics_do_not(fleet: Fleet) -> None:
    """A picture of a megabyte within a turn; and somebody from outside who looks for numbers."""
    heard = await fleet.caller.says("Hello there.", padding="x" * 1_000_000)
    assert heard.text == "Hello there."
    await shows_nobody_what_is_inside(fleet.caller)


async def looked_at(fleet: Fleet, address: str) -> int:
    """Send forty wrong keys, and say of each that it comes from elsewhere; return how many were looked at.

    Each of two servers looks at ten from one address, and at one more in six seconds.
    """
    headers = {"authorization": "Bearer guess", "x-forwarded-for": address}
    return [(await fleet.caller.says(headers=headers)).status for _ in range(40)].count(401)


GUARDED = {"FIRSTWORD_KEYS": "a-key-of-a-test", "FIRSTWORD_TRUSTED_PROXIES": "127.0.0.1"}


@pytest.mark.parametrize("outer", [None, "127.0.0.1"])
async def test_a_caller_is_who_the_outermost_of_ours_says(
    tmp_path: Path, upstream: Upstream, outer: str | None
) -> None:
    """Somebody guesses keys, and writes another address each time; it counts only behind something of ours."""
    fleet = Fleet(tmp_path, upstream, outer=outer, **GUARDED)
    try:
        wait_for(int(fleet.caller.url.rsplit(":", 1)[1]))
        assert 15 < await looked_at(fleet, "8.8.8.8") < 30
        assert (await looked_at(fleet, "9.9.9.9") > 15) is (outer is not None)
        assert await looked_at(fleet, "9.9.9.9, 8.8.8.8") < 10
    finally:
        fleet.stop()


@pytest.mark.skipif(CADDY is None, reason="there is no caddy on this machine")
async def test_caddy_does_the_same_with_the_file_of_the_page(tmp_path: Path, upstream: Upstream) -> None:
    """One of its two servers is on a machine that is gone: an old Caddy loses turns until its first probe."""
    [shown] = re.findall(r"^```caddyfile\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    fleet = Fleet(tmp_path, upstream)
    with a_machine_that_is_gone() as gone, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.close()
        for old, new in {
            "voice.example.com": f"http://127.0.0.1:{port}",
            "firstword-1:8000": f"127.0.0.1:{gone}",
            "firstword-2:8000": fleet.servers[1].caller().url.removeprefix("http://"),
        }.items():
            assert old in shown
            shown = shown.replace(old, new)
        (tmp_path / "Caddyfile").write_text("{\n\tadmin off\n}\n" + shown)
        homes = {name: str(tmp_path) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        command = [str(CADDY), "run", "--adapter", "caddyfile", "--config", str(tmp_path / "Caddyfile")]
        caddy = Process(command, tmp_path, {**os.environ, **homes})
        try:
            wait_for(port)
            caller = Caller(f"http://127.0.0.1:{port}")
            await asyncio.to_thread(caddy.says, f'"host":"127.0.0.1:{gone}","error"')
            await caller.says()  # it writes the line a moment before it heeds what it says
            for _ in range(6):
                assert (await caller.says("Hello again.")).text == "Hello again."
            heard = await caller.hears(slowly("One", "two", "three", "four", "five"))
            times = [at for at, data in heard.reads if b'"content"' in data]
            assert heard.done and times[-1] - times[0] > 0.3
            await shows_nobody_what_is_inside(caller)
        finally:
            caddy.kill()
            fleet.stop()


def test_the_balancer_waits_longer_than_a_turn_and_closes_before_the_servers() -> None:
    """Its bounds are outside ours, and its kept connections end before ours."""
    from firstword.serving import SETUP
    from firstword.settings import Settings

    bounds = dict(re.findall(r"^\s*(\w+) (\d+)[sm];", CONF, re.MULTILINE))
    fields = Settings.model_fields
    assert int(bounds["proxy_read_timeout"]) > fields["turn_timeout"].default
    assert int(bounds["client_max_body_size"]) * 1024**2 == fields["max_body"].default
    assert int(bounds["client_body_timeout"]) == fields["body_timeout"].default
    assert int(re.findall(r"keepalive_timeout (\d+)s", CONF)[0]) < SETUP.keep_alive
    names = [name for name in documents("compose.yaml")[0]["services"] if name.startswith("firstword")]
    assert re.findall(r"server ([\w-]+):8000 resolve", CONF) == names
