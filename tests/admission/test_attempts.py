"""Whoever guesses keys is slowed, and whoever holds one is not, also behind the same address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from served import Served

from firstword import App, ConfigError, TooManyRequests, Unauthorized
from firstword.admission import Gate
from firstword.admission.attempts import BURST, EVERY, MOST, Attempts
from firstword.admission.callers import address_of, household, networks
from firstword.admission.keys import KeyFile, line_of, new_key
from firstword.server.request import read_headers
from firstword.testing import Upstream

AWAY, ELSEWHERE = ("203.0.113.9", 50000), ("203.0.113.10", 50000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands where the test puts it."""
    now = [1000.0]
    monkeypatch.setattr("firstword.clock.now", lambda: now[0])
    return now


def bearer(key: str) -> dict[str, str]:
    """The header of a key."""
    return {"authorization": f"Bearer {key}"}


def said(gate: Gate, key: str, client: Any = AWAY, **headers: str) -> str:
    """What becomes of a key: "in", or the name of the error."""
    try:
        gate.admit({**bearer(key), **headers}, client)
    except (Unauthorized, TooManyRequests) as error:
        return type(error).__name__
    return "in"


def guess(gate: Gate, count: int, client: Any = AWAY, **headers: str) -> list[str]:
    """Try as many keys."""
    return [said(gate, f"guess-{number}", client, **headers) for number in range(count)]


def gate_of(*keys: str, **more: Any) -> Gate:
    """A gate in front of a held key."""
    return Gate(keys, holds_key=True, open_to_all=False, **more)


def test_after_ten_wrong_keys_the_next_is_not_looked_at(clock: list[float]) -> None:
    """The right one among them would be found by nobody: it is refused as the others are, with a time to come back."""
    gate = gate_of("hunter2")

    assert guess(gate, BURST + 5) == ["Unauthorized"] * BURST + ["TooManyRequests"] * 5
    assert said(gate, "hunter2") == "TooManyRequests"
    with pytest.raises(TooManyRequests) as caught:
        gate.admit(bearer("hunter2"), AWAY)
    assert caught.value.retry_after == EVERY and caught.value.headers()["retry-after"] == "6"
    assert said(gate, "hunter2", ELSEWHERE) == "in"


def test_ten_keys_a_minute_can_be_tried_and_no_more(clock: list[float]) -> None:
    """For an hour, as fast as can be."""
    gate, looked = gate_of("hunter2"), 0
    for _ in range(3600):
        looked += guess(gate, 3).count("Unauthorized")
        clock[0] += 1

    assert BURST + 590 <= looked <= BURST + 600


def test_who_was_let_in_before_is_let_in_while_somebody_guesses(clock: list[float]) -> None:
    """An engine, and a guesser, behind one address: a key in the operator's own words that was good from there."""
    gate = gate_of("hunter2", "other")
    assert said(gate, "hunter2") == "in"

    guess(gate, 50)
    assert [said(gate, key) for key in ("hunter2", "other", "hunter3")] == ["in", "TooManyRequests", "TooManyRequests"]


def test_a_key_that_we_made_is_always_looked_at(clock: list[float], tmp_path: Any) -> None:
    """Nobody guesses 256 bits, so the first call of a new client is let in, however many guess beside it."""
    key = new_key()
    (tmp_path / "keys").write_text(line_of("shop", key))
    gate = gate_of("hunter2", file=KeyFile(tmp_path / "keys"))

    guess(gate, 50)
    assert said(gate, key) == "in"
    assert said(gate, new_key()) == "TooManyRequests"  # a wrong one is told to slow down, whatever its form


@pytest.mark.parametrize(
    ("key", "becomes"),
    [
        ("9f86d081884c7d659a2feaa0c55ad015", "in"),  # openssl rand -hex 16
        ("2c26b46b-68ff-468f-99b4-53c1d8e7a0f3", "in"),
        ("a-key-for-my-callers", "TooManyRequests"),
        ("hunter2-hunter2-hunter2-hunter2-hunter2", "TooManyRequests"),  # long, and of eight signs
        ("0" * 64, "TooManyRequests"),
    ],
)
def test_a_long_key_is_always_looked_at_too(clock: list[float], key: str, becomes: str) -> None:
    """The server was restarted while somebody guesses behind the same proxy: its clients are let in at once."""
    gate = gate_of(key)

    guess(gate, 50)
    assert said(gate, key) == becomes
    assert said(gate, "5f4dcc3b5aa765d61d8327deb882cf99") == "TooManyRequests"


def test_a_good_key_does_not_buy_more_guesses(clock: list[float]) -> None:
    """A client with a key of its own, who wants another's."""
    gate = gate_of("mine", "hunter2")
    for _ in range(BURST):
        assert (said(gate, "mine"), *guess(gate, 1)) == ("in", "Unauthorized")

    assert (said(gate, "mine"), said(gate, "hunter2")) == ("in", "TooManyRequests")


def test_a_key_that_is_revoked_is_not_let_in_for_having_been_good(clock: list[float], tmp_path: Any) -> None:
    """What is remembered of a key is that it need not wait, not that it may come in."""
    path = tmp_path / "keys"
    path.write_text(line_of("shop", "hunter2"))
    gate = gate_of(file=KeyFile(path))
    assert said(gate, "hunter2") == "in"
    path.write_text("")
    assert gate.file is not None and gate.file.look()
    gate.renew()

    assert said(gate, "hunter2") == "Unauthorized"


def test_no_key_at_all_is_no_guess(clock: list[float]) -> None:
    """A browser, a scanner of ports: each is told the same, as often as it asks."""
    gate = gate_of("hunter2")
    for _ in range(50):
        with pytest.raises(Unauthorized, match="No key was sent"):
            gate.admit({}, AWAY)

    assert said(gate, "hunter2") == "in"
    assert dict(gate.refused) == {"no_key": 50}


def test_what_was_refused_is_counted_by_its_reason(clock: list[float]) -> None:
    """For the metrics: guesses show there."""
    gate = gate_of("hunter2", operator_key="op")
    guess(gate, BURST + 2)
    with pytest.raises(TooManyRequests):
        gate.admit_operator(bearer("op2"), AWAY)

    assert dict(gate.refused) == {"wrong_key": BURST, "too_many": 3}


def test_the_operator_s_key_is_guarded_in_the_same_way(clock: list[float]) -> None:
    """Its holder is let in from where they were before, and its guesser is slowed."""
    gate = gate_of("hunter2", operator_key="op")
    gate.admit_operator(bearer("op"), ELSEWHERE)
    for client in (AWAY, ELSEWHERE):
        guess(gate, 50, client)

    gate.admit_operator(bearer("op"), ELSEWHERE)
    with pytest.raises(TooManyRequests):
        gate.admit_operator(bearer("op"), AWAY)


def test_a_client_s_key_on_the_operator_s_pages_is_no_guess(clock: list[float]) -> None:
    """A probe of /ready sends the key that turns are sent with, all day: nobody else behind its address is held up."""
    gate = gate_of("hunter2", "hunter3", operator_key="op")

    assert not any(gate.is_operator(bearer("hunter2"), AWAY) for _ in range(50))
    gate.admit(bearer("hunter3"), AWAY)
    assert dict(gate.refused) == {"wrong_operator_key": 50}


# --- whose address it is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shared"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_of_ipv6_a_whole_network_is_one_guesser(address: str, shared: str) -> None:
    """Anybody with a line has 2^64 addresses."""
    assert household(address) == shared


def test_the_memory_of_failures_is_bounded(clock: list[float]) -> None:
    """A hundred thousand networks, each once: the oldest are forgotten."""
    attempts = Attempts()
    for number in range(MOST + 1000):
        attempts.note_failure(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1")
        attempts.note_good(str(number), b"")

    assert len(attempts._paid) == len(attempts._good) == MOST


PROXIES = networks(["10.0.0.0/8", "2001:db8:ffff::/48"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # no proxy of ours: anybody can write that
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),  # the left one was the caller's word
        ("10.0.0.1", "198.51.100.1, 10.0.0.2, 10.0.0.3", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("10.0.0.1", "2001:db8::7", "2001:db8::7"),
        ("2001:db8:ffff::1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "10.0.0.9", "10.0.0.9"),
    ],
)
def test_behind_a_proxy_of_ours_the_last_stranger_counts(peer: str, forwarded: str, found: str) -> None:
    """What stands to the left of it the stranger has written."""
    assert address_of({"x-forwarded-for": forwarded}, (peer, 1), PROXIES) == found
    assert address_of({"x-forwarded-for": forwarded}, (peer, 1), ()) == peer


def test_the_lines_of_the_header_are_one_list() -> None:
    """A proxy adds a line of its own, and another one behind it does too."""
    lines = [(b"x-forwarded-for", b"1.1.1.1"), (b"host", b"a"), (b"x-forwarded-for", b"198.51.100.1, 10.0.0.2")]
    headers = read_headers(lines)

    assert headers == {"host": "a", "x-forwarded-for": "1.1.1.1, 198.51.100.1, 10.0.0.2"}
    assert address_of(headers, ("10.0.0.1", 1), PROXIES) == "198.51.100.1"


def test_a_guesser_cannot_hide_behind_a_header(clock: list[float]) -> None:
    """Another address in each request: without a proxy that we were told of, none is believed."""
    direct, behind = gate_of("hunter2"), gate_of("hunter2", proxies=PROXIES)
    for number in range(50):
        guess(direct, 1, **{"x-forwarded-for": f"198.51.100.{number}"})
        guess(behind, 1, ("10.0.0.1", 1), **{"x-forwarded-for": f"198.51.100.{number}, 203.0.113.9"})

    assert said(direct, "hunter2") == "TooManyRequests"
    assert said(behind, "hunter2", ("10.0.0.1", 1), **{"x-forwarded-for": "203.0.113.9"}) == "TooManyRequests"
    assert said(behind, "hunter2", ("10.0.0.1", 1), **{"x-forwarded-for": "203.0.113.8"}) == "in"


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.0/99", "10.0.0.0/8,,"])
def test_what_is_no_network_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of a host, or a stray comma: it would trust nobody, or somebody else."""
    monkeypatch.setenv("FIRSTWORD_TRUSTED_PROXIES", text)
    with pytest.raises(ConfigError, match="FIRSTWORD_TRUSTED_PROXIES"):
        App()


async def test_a_guesser_gets_a_429_and_a_time(upstream: Upstream, serve: Callable[[App], Served]) -> None:
    """Over the wire, at once: nobody is kept waiting, and nothing is held for them."""
    caller = Caller(serve(App(base_url=upstream.base_url, api_key="sk-held", keys=["hunter2"])).url)
    heard = [await caller.says(headers=bearer(f"guess-{number}")) for number in range(BURST + 1)]

    assert [each.status for each in heard] == [401] * BURST + [429]
    assert (heard[-1].error["code"], heard[-1].headers["retry-after"]) == ("rate_limit_exceeded", "6")
    assert 5000 < int(heard[-1].headers["retry-after-ms"]) <= 6000
