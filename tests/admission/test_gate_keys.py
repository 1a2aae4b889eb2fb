"""Gate keys with a name: how they are made and kept, what their file may say, and that a change counts at once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from caller import Caller
from served import Served

from firstword import App, ConfigError, Unauthorized
from firstword.admission import Gate
from firstword.admission.grant import Allowance
from firstword.admission.keys import KeyFile, is_made, line_of, new_key, read_keys, unnamed
from firstword.server.watch import Watch
from firstword.testing import Upstream
from firstword.transport import Transport

AWAY = ("203.0.113.9", 50000)
HASH = "sha256:" + hashlib.sha256(b"one").hexdigest()
OTHER = "sha256:" + hashlib.sha256(b"two").hexdigest()


def bearer(key: str) -> dict[str, str]:
    """The header of a key."""
    return {"authorization": f"Bearer {key}"}


def gate_of(file: KeyFile | None, *keys: str, **more: Any) -> Gate:
    """A gate in front of a held key."""
    return Gate(keys, holds_key=True, open_to_all=False, file=file, **more)


# --- a key --------------------------------------------------------------------------------------------------


def test_a_new_key_cannot_be_guessed_and_can_be_known_by_its_form() -> None:
    """A scanner of secrets looks for `fw-` and 43 signs; 32 random bytes stand in them."""
    keys = {new_key() for _ in range(200)}

    assert len(keys) == 200
    assert all(is_made(key) and key.startswith("fw-") and len(key) == 46 for key in keys)
    assert not any(map(is_made, ("fw-", "hunter2", new_key()[:-1], new_key() + "x", f"x{new_key()}", new_key() + "\n")))


def test_a_key_without_a_name_has_a_stable_one_that_tells_nothing() -> None:
    """Limits and metrics need a name for each of FIRSTWORD_KEYS; it is neither the text nor the start of its hash."""
    [[one], [again], [other]] = (list(unnamed([key]).values()) for key in ("hunter2", "hunter2", "hunter3"))

    assert one == again != other
    assert one.name.startswith("key-") and len(one.name) == 12
    assert one.name[4:] not in hashlib.sha256(b"hunter2").hexdigest() and "hunter2" not in one.name


# --- the file ----------------------------------------------------------------------------------------------


def test_a_line_names_a_client_and_what_it_may() -> None:
    """Comments, blank lines, Windows' line ends and capital hex are all somebody's way to write."""
    limits = "requests=60 tokens=2e4 concurrent=5 budget=2.50 models=m1,m2"
    text = (
        f"# Our clients\r\n\r\nshop {HASH.upper().replace('SHA256', 'sha256')} {limits} # until May\r\n\tdesk\t{OTHER}"
    )
    grants = {grant.name: grant for grant in read_keys(text, "keys").values()}

    assert list(grants) == ["shop", "desk"]
    assert grants["shop"].allowance == Allowance(requests=60, tokens=20000, concurrent=5, budget=2.5)
    assert (grants["shop"].models, grants["desk"].models) == ({"m1", "m2"}, None)
    assert grants["desk"].allowance == Allowance()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["sh/op HASH"], "line 1: the first word is not a name"),
        ([f"{'a' * 65} HASH"], "line 1: the first word is not a name"),
        (["-shop HASH"], "line 1: the first word is not a name"),
        (["jwt:shop HASH"], "line 1: the first word is not a name"),
        (["key-0123abcd HASH"], "line 1: the first word is not a name"),  # one of FIRSTWORD_KEYS may be called so
        (["HASH"], "line 1: the first word is not a name"),
        (["", "shop"], "line 2: the second word is not the hash"),
        (["shop one"], "line 1: the second word is not the hash"),  # the key itself: it must not be shown
        (["shop HASH0"], "line 1: the second word is not the hash"),
        (["shop md5HASH"], "line 1: the second word is not the hash"),
        (["shop HASH requests"], "'requests' has no value"),
        (["shop HASH requests=1 requests=2"], "'requests' stands there twice"),
        (["shop HASH HASH"], "a word has no value"),
        (["shop HASH request=1"], "'request' is none of requests"),
        (["shop HASH requests=-1"], "requests is not a number over 0"),
        (["shop HASH tokens=nan"], "tokens is not a number over 0"),
        (["shop HASH budget=1e400"], "budget is not a number over 0"),
        (["shop HASH concurrent=1.5"], "concurrent is not a whole number over 0"),
        (["shop HASH concurrent=0"], "concurrent is not a whole number over 0"),
        (["shop HASH models="], "models names no model"),
        (["shop HASH models=a,,b"], "models names no model"),
        (["shop HASH", "", "desk HASH"], "line 3: the same key stands in line 1"),
        (["shop HASH", "shop OTHER models=m1"], "line 2: 'shop' may do something else here than in line 1"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_no_hash_is_shown(lines: list[str], said: str) -> None:
    """The message is for the operator's log: file, line, and what is wrong, and nothing that was a key or a hash."""
    written = [line.replace("HASH", HASH).replace("OTHER", OTHER) for line in lines]
    with pytest.raises(ConfigError) as caught:
        read_keys("\n".join(written), "/etc/keys")

    assert said in caught.value.message and caught.value.message.startswith("/etc/keys, line ")
    assert HASH[7:] not in str(caught.value) and OTHER[7:] not in str(caught.value)
    assert caught.value.hint


def test_a_client_may_have_two_keys_while_one_replaces_the_other() -> None:
    """Both lines say the same, and whoever sends either is the same client."""
    grants = read_keys(f"shop {HASH} models=m1\nshop {OTHER} models=m1\n", "keys")

    assert len(grants) == 2 and len({grant.name for grant in grants.values()}) == 1


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"shop nothing"])
def test_a_file_that_cannot_be_read_is_told_at_the_start(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong path must not open the door, and neither may a file of something else."""
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    monkeypatch.setenv("FIRSTWORD_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(ConfigError, match="cannot be read" if content is None else str(tmp_path / "keys")):
        App()


def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    """All clients were revoked: the held key is not for this machine alone again, and not for everybody."""
    (tmp_path / "keys").write_text("# nobody\n")
    gate = gate_of(KeyFile(tmp_path / "keys"))

    assert gate.is_closed and not gate.local_only and not gate.passes_keys
    with pytest.raises(Unauthorized):
        gate.admit({"host": "localhost", **bearer("one")}, ("127.0.0.1", 1))


def test_a_key_in_the_file_and_in_the_environment_has_the_limits_of_the_file(tmp_path: Path) -> None:
    """It was given a name, and the variable was forgotten: it must not do more by that."""
    (tmp_path / "keys").write_text(f"shop {HASH} requests=1\n")
    gate = gate_of(KeyFile(tmp_path / "keys"), "one", "two")

    assert gate.admit(bearer("one"), AWAY).name == "shop"
    assert gate.admit(bearer("two"), AWAY).name.startswith("key-")


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    """Written anew, replaced by another file, or a link that leads elsewhere, as Kubernetes has it."""
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "link"
    one.write_text(f"shop {HASH}\n")
    two.write_text(f"desk {OTHER}\n")
    link.symlink_to(one)
    file = KeyFile(link)
    assert not file.look()

    (tmp_path / "new").symlink_to(two)
    (tmp_path / "new").replace(link)
    assert file.look() and [grant.name for grant in file.grants.values()] == ["desk"]
    two.write_text(f"desk {OTHER}\nshop {HASH}\n")
    assert file.look() and len(file.grants) == 2
    (tmp_path / "three").write_text(f"deck {OTHER}\nshop {HASH}\n")  # of the same size
    os.utime(tmp_path / "three", ns=(two.stat().st_mtime_ns, two.stat().st_mtime_ns))
    (tmp_path / "three").replace(two)
    assert file.look() and {grant.name for grant in file.grants.values()} == {"deck", "shop"}


def test_a_broken_change_leaves_what_was_and_is_told_once(tmp_path: Path) -> None:
    """Somebody saves half a line, or removes the file: callers go on, and the log has one line for it."""
    path = tmp_path / "keys"
    path.write_text(f"shop {HASH}\n")
    file = KeyFile(path)

    path.write_text("shop sha256:00\n")
    with pytest.raises(ConfigError, match="line 1"):
        file.look()
    assert not file.look() and len(file.grants) == 1
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        file.look()
    assert not file.look() and len(file.grants) == 1
    path.write_text("")
    assert file.look() and not file.grants


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing."""
    resource = pytest.importorskip("resource")
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


def test_a_change_that_could_not_be_read_is_read_later(tmp_path: Path) -> None:
    """A key is revoked while the process has no descriptor left; that is told once, and the key goes afterwards."""
    path = tmp_path / "keys"
    path.write_text(f"shop {HASH}\n")
    file = KeyFile(path)

    for _ in range(2):
        path.write_text("# nobody\n")
        with no_descriptors():
            with pytest.raises(ConfigError, match="cannot be read: Too many open files"):
                file.look()
            assert not file.look() and len(file.grants) == 1
        assert file.look() and not file.grants
        assert not file.look()
        path.write_text(f"shop {HASH}\n")
        assert file.look() and len(file.grants) == 1


# --- at the door -------------------------------------------------------------------------------------------


def test_only_the_whole_key_is_one(tmp_path: Path) -> None:
    """Whatever is nearly a key, or the hash that stands in the file, is none."""
    key = new_key()
    (tmp_path / "keys").write_text(line_of("shop", key))
    gate = gate_of(KeyFile(tmp_path / "keys"))
    hashed = hashlib.sha256(key.encode()).hexdigest()

    assert gate.admit(bearer(key), AWAY).name == "shop"
    for wrong in (key[:-1], key + "A", key.lower(), key[3:], hashed, f"sha256:{hashed}", "shop", f"{key},{key}"):
        with pytest.raises(Unauthorized):
            Gate([], holds_key=True, open_to_all=False, file=gate.file).admit(bearer(wrong), AWAY)


def test_every_comparison_takes_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A good key, a wrong one, the operator's: each is compared by digest, and as a whole."""
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest
    monkeypatch.setattr(
        "hmac.compare_digest", lambda one, two: (compared.append((len(one), len(two))), real(one, two))[1]
    )
    gate = gate_of(None, "one", operator_key="op")
    gate.admit(bearer("one"), AWAY)
    gate.admit_operator(bearer("op"), AWAY)
    with pytest.raises(Unauthorized):
        gate.admit_operator(bearer("one"), AWAY)

    assert compared == [(32, 32)] * 3


async def test_a_key_is_given_and_taken_while_turns_are_served(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[App], Served]
) -> None:
    """No restart: a client that was added is heard, one that was revoked is refused."""
    monkeypatch.setattr("firstword.server.watch.LOOK_EVERY", 0.01)
    read = threading.Semaphore(0)
    renew = Gate.renew
    monkeypatch.setattr(Gate, "renew", lambda gate: (renew(gate), read.release())[0])
    path, one, two = tmp_path / "keys", new_key(), new_key()
    path.write_text(line_of("shop", one))
    monkeypatch.setenv("FIRSTWORD_KEYS_FILE", str(path))
    app = App(base_url=upstream.base_url, api_key="sk-held")
    read.acquire(timeout=5)
    caller = Caller(serve(app).url)

    assert [(await caller.says(headers=bearer(key))).status for key in (one, two)] == [200, 401]
    new = tmp_path / "new"
    new.write_text(line_of("desk", two))
    new.replace(path)
    assert read.acquire(timeout=5)
    assert [(await caller.says(headers=bearer(key))).status for key in (one, two)] == [401, 200]


async def test_a_broken_file_is_told_in_the_log_and_the_clients_go_on(
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[App], Served],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An editor saved half of it: the line is named, once, and the key that worked still works."""
    monkeypatch.setattr("firstword.server.watch.LOOK_EVERY", 0.01)
    told = threading.Semaphore(0)
    caplog.handler.addFilter(lambda record: told.release() is None if "not read again" in record.msg else True)
    path, key = tmp_path / "keys", new_key()
    path.write_text(line_of("shop", key))
    monkeypatch.setenv("FIRSTWORD_KEYS_FILE", str(path))
    caller = Caller(serve(App(base_url=upstream.base_url, api_key="sk-held")).url)

    assert (await caller.says(headers=bearer(key))).status == 200
    path.write_text(f"{line_of('shop', key)}\ndesk {HASH[:-1]}\n")
    assert told.acquire(timeout=5)
    assert not told.acquire(timeout=0.1)
    assert "line 2: the second word is not the hash of a key" in caplog.text and HASH[8:-1] not in caplog.text
    assert (await caller.says(headers=bearer(key))).status == 200


@contextlib.contextmanager
def no_thread_at_first() -> Iterator[None]:
    """The machine has no thread to spare for a moment."""
    asked, start = [], threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        asked.append(thread)
        if len(asked) == 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", begin)
        yield
    assert len(asked) == 2


@contextlib.contextmanager
def all_threads_busy() -> Iterator[None]:
    """Users' functions wait for a database that does not answer, in all threads that they share."""
    pool, answers = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(pool)
    pool.submit(answers.wait, 30)
    try:
        yield
    finally:
        answers.set()


@pytest.mark.parametrize("trouble", [no_thread_at_first, all_threads_busy])
async def test_a_revoked_key_goes_whatever_the_threads_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[], Any]
) -> None:
    """The file is looked at beside all else that the process does, and a look that failed is not the last one."""
    monkeypatch.setattr("firstword.server.watch.LOOK_EVERY", 0.01)
    path, key = tmp_path / "keys", new_key()
    path.write_text(line_of("shop", key))
    gate = gate_of(KeyFile(path))
    watch, renewed = Watch(gate, Transport()), asyncio.Event()
    monkeypatch.setattr(gate, "renew", lambda: (Gate.renew(gate), renewed.set()))
    path.write_text("# nobody any more\n")
    with trouble():
        await watch.open()
        try:
            await asyncio.wait_for(renewed.wait(), 5)
        finally:
            await watch.close()

    with pytest.raises(Unauthorized):
        gate.admit(bearer(key), AWAY)
