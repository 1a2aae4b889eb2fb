"""What a caller hears who asks for more than there is, on a clock that jumps: which limit, and when there is more.

Limits are the operator's, and stand in the environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from conftest import ROOT
from served import Served

from firstword import App, Model
from firstword.admission.grant import Allowance, Grant
from firstword.limits import Limits
from firstword.limits.lease import PER_KEY, PER_SESSION, WHAT, WHO, whose_key
from firstword.limits.lease import told as told_of
from firstword.limits.meters import Ask, Refusal
from firstword.testing import Phone, Score, after, drips, fails, run, says, script, silent
from firstword.testing.models import Scripted

VAPI = {"call": {"id": "c1", "orgId": "o1", "assistantId": "a1"}}
SORRY = "Sorry, I did not get that. Could you say it again?"
Set = Callable[..., None]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Set limits by their names, without `FIRSTWORD_`."""

    def put(**values: Any) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"FIRSTWORD_{name.upper()}", str(value))

    return put


async def calls(count: int, *, models: Scripted | None = None, every: float = 0.0, **more: Any) -> list[Score]:
    """Have one turn after the other, and return what was heard."""

    async def main() -> list[Score]:
        scores = []
        async with Phone(models=models or says("Hi.")) as phone:
            for _ in range(count):
                scores.append(await phone.talk(**more))
                await asyncio.sleep(every)
            await nothing_is_held(phone)
        return scores

    return await run(main)


async def nothing_is_held(phone: Phone) -> None:
    """Assert that every turn has given back what it held."""
    assert phone.app._built is not None
    limits = phone.app._built.limits
    assert limits.turns == 0 and limits._terms.meters._held == {}  # type: ignore[attr-defined]


def told(score: Score) -> tuple[int, str, str]:
    """Return the status, the code and the message of an error."""
    assert score.error is not None
    return score.status, score.error["code"], score.error["message"]


# --- requests and turns -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "who", "body"),
    [
        ("", "The server", {}),
        ("_per_key", "This client", {}),
        ("_per_session", "This session", VAPI | {"channel": "x"}),
    ],
    ids=["all", "key", "session"],
)
async def test_who_asks_too_often_is_told_when_to_come_back(
    limits: Set, scope: str, who: str, body: dict[str, Any]
) -> None:
    """Three a minute: three at once, and the next one twenty seconds later."""
    limits(**{f"requests_per_minute{scope}": 3})

    async def main() -> None:
        async with Phone(models=says("Hi.")) as phone:
            path = "/agora/chat/completions" if body else "/chat/completions"
            heard = [await phone.talk(request=body, path=path) for _ in range(4)]
            assert [score.status for score in heard] == [200, 200, 200, 429]
            said = f"{who} has made its 3 requests of this minute.\nhint: there is more in 20.0 seconds"
            assert told(heard[3]) == (429, "rate_limit_exceeded", said)
            assert (heard[3].headers["retry-after"], heard[3].headers["retry-after-ms"]) == ("20", "20000")
            assert heard[3].seen == []
            await asyncio.sleep(20)
            heard = [await phone.talk(request=body, path=path) for _ in range(2)]
            assert [score.status for score in heard] == [200, 429]
            assert phone.app._built.limits.refused == {f"requests_per_minute{scope}": 2}  # type: ignore[union-attr]
            await nothing_is_held(phone)

    await run(main)


async def test_one_client_s_flood_is_not_another_s(limits: Set) -> None:
    """Callers bring keys of their own: each has a share, and a session that is no other's."""
    limits(requests_per_minute_per_key=1, requests_per_minute_per_session=1)

    async def main() -> None:
        async with Phone(models=says("Hi.")) as phone:

            async def status(key: str, session: str) -> int:
                headers = {"authorization": f"Bearer {key}"}
                return (await phone.talk(headers=headers, path=f"/s/{session}/chat/completions")).status

            assert [await status("ann", "1"), await status("ann", "2"), await status("bob", "1")] == [200, 429, 200]

    await run(main)


@pytest.mark.parametrize("scope", ["_per_key", "_per_session"])
async def test_so_many_turns_at_once_and_a_place_is_free_when_one_is_over(limits: Set, scope: str) -> None:
    """Two speak; the third is refused at once, and comes in when one has ended, or was hung up on."""
    limits(**{f"max_turns{scope}": 2})
    path = "/s/7/chat/completions"

    async def main() -> None:
        async with Phone(models=drips("One two three.", 1.0)) as phone:
            first = asyncio.ensure_future(phone.talk("a", path=path))
            second = asyncio.ensure_future(phone.talk("b", path=path, leaves=1.5))
            await asyncio.sleep(1.2)
            third = await phone.talk("c", path=path)
            assert told(third)[:2] == (429, "rate_limit_exceeded") and third.ended == 0.0
            assert "has 2 turns in progress" in told(third)[2] and third.headers["retry-after-ms"] == "1000"
            await asyncio.sleep(0.4)  # the second has left
            assert (await phone.talk("d", path=path)).text == "One two three."
            assert (await first).text == "One two three." and (await second).text == "One"
            await nothing_is_held(phone)

    await run(main)


def taken(limits: Limits, grant: Grant, times: int) -> list[bool]:
    """Return of so many requests whether each is let in; none is over."""
    leases = [limits.lease(grant) for _ in range(times)]
    return [lease is None or lease.enter(grant, "10.0.0.1") is None for lease in leases]


def test_a_key_s_own_line_says_more_than_the_usual() -> None:
    """The usual is one request a minute; this key may make two, and has the usual number of turns."""
    limits = Limits(per_key=Allowance(requests=1, concurrent=3))
    assert taken(limits, Grant("other"), 2) == [True, False]
    assert taken(limits, Grant("shop", allowance=Allowance(requests=2)), 3) == [True, True, False]
    assert taken(limits, Grant("much", allowance=Allowance(requests=9)), 4) == [True, True, True, False]


def test_a_key_with_a_limit_is_held_to_it_where_nobody_else_is() -> None:
    """No setting at all: only the line of the key says something, and the others pay nothing."""
    limits = Limits()
    assert taken(limits, Grant("shop", allowance=Allowance(requests=1)), 2) == [True, False]
    assert limits.lease(Grant("other")) is limits.lease(Grant("third", allowance=Allowance())) is None


@pytest.mark.parametrize(
    ("host", "other", "is_one"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("a socket", "another", False),
    ],
)
def test_who_has_no_key_is_known_by_the_address(host: str, other: str, is_one: bool) -> None:
    """Of IPv6 by the half of it that a provider gives one customer: the rest is theirs to choose."""
    assert (whose_key(Grant(), host) == whose_key(Grant(), other)) is is_one


@pytest.mark.parametrize(("proxies", "statuses"), [("127.0.0.1", [200, 200, 429]), ("", [200, 429, 429])])
async def test_callers_without_a_key_behind_a_proxy(
    limits: Set, serve: Callable[[App], Served], proxies: str, statuses: list[int]
) -> None:
    """One turn a minute for each: a proxy that is trusted tells them apart; the word of any other is nobody's."""
    limits(requests_per_minute_per_key=1, trusted_proxies=proxies)
    app = App()
    app.model("mine")(lambda turn: "Hello.")
    caller = Caller(serve(app).url)
    heard = [await caller.says(model="mine", headers={"x-forwarded-for": f"9.9.9.{end}"}) for end in (2, 3, 2)]
    assert [each.status for each in heard] == statuses


def test_a_caller_s_key_is_kept_as_a_digest() -> None:
    """What meters are called may go to a store that many share."""
    whose = whose_key(Grant(key="sk-secret"), "10.0.0.1")
    assert "secret" not in whose and whose != whose_key(Grant(key="sk-secreu"), "10.0.0.1")
    assert whose_key(Grant("shop", key="sk-secret"), "") == "key shop" and whose_key(Grant(), "")


# --- tokens -----------------------------------------------------------------------------------------

COUNTS = script.events(script.role(), script.words("One two."), script.finish(), script.usage(100, 50), script.done())


async def test_tokens_are_guessed_before_and_counted_after(limits: Set) -> None:
    """A guess of 256 and more is taken; the provider counts 150, so that the fourth turn finds the 600 used."""
    limits(tokens_per_minute_per_key=600)
    heard = await calls(4, models=COUNTS)
    assert [score.status for score in heard] == [200, 200, 200, 429]
    status, code, message = told(heard[3])
    assert (status, code) == (429, "rate_limit_exceeded") and "has used its 600 tokens of this minute" in message


async def test_what_was_not_used_at_all_is_given_back(limits: Set) -> None:
    """The model refuses: nobody pays for the tokens of that, and a hundred such turns are no share."""
    limits(tokens_per_minute_per_key=300)
    assert {score.status for score in await calls(20, models=fails(400))} == {400}


async def test_a_turn_in_progress_is_not_cut_off(limits: Set) -> None:
    """It uses a hundred times its share: it is heard to its end, and the next one waits for so much longer."""
    limits(tokens_per_minute_per_key=600)
    long = script.events(
        script.role(), script.words("One two."), script.finish(), script.usage(1000, 59_000), script.done()
    )
    heard = await calls(2, models=long)
    assert heard[0].text == "One two." and heard[0].done
    assert heard[1].status == 429 and 5900 < int(heard[1].headers["retry-after"]) < 6100


async def test_without_a_count_the_chunks_are_the_tokens(limits: Set) -> None:
    """A server that does not know `include_usage`."""
    limits(tokens_per_minute=100_000)
    (score,) = await calls(1, models=says("One two three four."))
    assert score.turn is not None and score.turn.used is not None
    (used,) = score.turn.used
    assert not used.is_counted and used.model == "first" and 4 <= used.completion <= 7 and 0 < used.prompt < 20


async def test_who_did_not_ask_for_a_count_gets_none(limits: Set) -> None:
    """The provider is asked for it all the same, and who has asked for it gets it."""
    limits(tokens_per_minute=100_000)

    async def main() -> None:
        async with Phone(models=COUNTS) as phone:
            quiet = await phone.talk()
            asking = await phone.talk(request={"stream_options": {"include_usage": True}})
            whole = await phone.talk(stream=False)
            for score in (quiet, asking, whole):
                assert score.seen[0].body["stream_options"] == {"include_usage": True}
                assert score.turn is not None and score.turn.used is not None
                assert [(used.prompt, used.completion, used.is_counted) for used in score.turn.used] == [
                    (100, 50, True)
                ]
                assert score.done and score.finish_reason == "stop" and score.text == "One two."
            assert not any("usage" in chunk for chunk in quiet.chunks)
            assert asking.chunks[-1]["usage"]["total_tokens"] == whole.chunks[0]["usage"]["total_tokens"] == 150

    await run(main)


async def test_nobody_is_asked_to_count_where_nothing_is_limited() -> None:
    """Off is free, for the provider as well."""
    (score,) = await calls(1)
    assert "stream_options" not in score.seen[0].body
    assert score.turn is not None and score.turn.used is None and score.turn.cost is None


async def test_what_lost_and_what_failed_midway_is_counted_too(limits: Set) -> None:
    """The first model is silent, the second wins: the prompt was sent to both. A third turn is cut off after a word."""
    limits(tokens_per_minute=100_000)

    async def main() -> None:
        slow, quick = silent(), after(0.1, COUNTS)
        app = App([Model(name, base_url=f"http://{name}.test/v1", api_key="k") for name in ("slow", "quick")])
        async with Phone(app, models=[slow, quick], hedge_after=1.0) as phone:
            score = await phone.talk()
            assert score.turn is not None and score.turn.used is not None
            used = {each.model: each for each in score.turn.used}
            assert set(used) == {"slow", "quick"} and used["quick"].is_counted
            assert used["slow"].prompt > 0 and used["slow"].completion == 0 and not used["slow"].is_counted

    await run(main)
    (score,) = await calls(1, models=script.closes_after("Hello there"))
    assert score.turn is not None and score.turn.used is not None
    assert [(each.completion > 0, each.is_counted) for each in score.turn.used] == [(True, False)]


# --- where an error is not heard --------------------------------------------------------------------


async def test_an_engine_that_hears_no_errors_hears_an_apology(limits: Set) -> None:
    """On Vapi any error ends the call, in mid-conversation, because of the callers before."""
    limits(requests_per_minute_per_key=1, max_turns_per_key=1)
    heard = await calls(2, request=VAPI, path="/vapi/chat/completions")
    assert [score.status for score in heard] == [200, 200]
    assert heard[1].text == SORRY and heard[1].done and heard[1].finish_reason == "stop" and heard[1].seen == []


async def test_a_program_is_told_the_error_there_too(limits: Set) -> None:
    """A reply in JSON is read by a program: an apology would break it."""
    limits(requests_per_minute_per_key=1)
    shape = {"response_format": {"type": "json_object"}}
    heard = await calls(2, request=VAPI | shape, path="/vapi/chat/completions")
    assert heard[1].status == 429 and heard[1].headers["retry-after"] == "60"


@pytest.mark.parametrize("limit", ["requests_per_minute_per_session", "tokens_per_minute_per_session"])
async def test_a_session_s_limit_is_heard_also_where_the_path_names_no_platform(limits: Set, limit: str) -> None:
    """By then the body was read, and shows whose it is."""
    limits(**{limit: 1})
    heard = await calls(2, request=VAPI, models=COUNTS)
    assert [score.status for score in heard] == [200, 200] and heard[1].text == SORRY


@pytest.mark.parametrize("path", ["/vapi/s/7/chat/completions", "/tavus/s/7/chat/completions"])
async def test_a_turn_that_is_sent_again_takes_the_place_of_the_first(limits: Set, path: str) -> None:
    """Vapi was seen to send one turn six times. A session may have one turn; another one meanwhile is too many."""
    limits(max_turns_per_session=1)

    async def main() -> None:
        async with Phone(models=drips("One two.", 1.0)) as phone:
            body = VAPI if "vapi" in path else {}
            same = [asyncio.ensure_future(phone.talk("Hello", path=path, request=body)) for _ in range(6)]
            await asyncio.sleep(0.5)
            other = await phone.talk("Something else", path=path, request=body, stream=False)
            assert other.text == SORRY if body else other.status == 429
            heard = [await each for each in same]
            assert [score.text for score in heard][-1] == "One two."
            assert 429 not in [score.status for score in heard]
            await nothing_is_held(phone)

    await run(main)


async def test_what_was_answered_and_is_asked_for_anew_takes_no_place_but_its_own(limits: Set) -> None:
    """A client goes round through a few words that it has had answers to, to have more turns at once than it may."""
    limits(max_turns_per_session=1, resent="supersede")

    async def main() -> None:
        async with Phone(models=drips("One two.", 1.0)) as phone:
            path = "/s/7/chat/completions"
            assert (await phone.talk("Hello", path=path)).status == 200
            other = asyncio.ensure_future(phone.talk("Something else", path=path))
            await asyncio.sleep(0.5)
            assert (await phone.talk("Hello", path=path)).status == 429
            retry = await phone.talk("Hello", path=path, headers={"x-stainless-retry-count": "1"})
            assert retry.text == "One two."  # of which no model hears
            assert (await other).text == "One two."
            await nothing_is_held(phone)

    await run(main)


async def test_one_that_is_refused_supersedes_nobody(limits: Set) -> None:
    """The same turn is sent again, over the limit: the first one is still answered."""
    limits(requests_per_minute_per_key=1)

    async def main() -> None:
        async with Phone(models=drips("One two three.", 1.0)) as phone:
            path = "/vapi/s/7/chat/completions"
            first = asyncio.ensure_future(phone.talk(path=path, request=VAPI))
            await asyncio.sleep(1.5)
            assert (await phone.talk(path=path, request=VAPI)).text == SORRY
            assert (await first).text == "One two three."

    await run(main)


def test_every_limit_stands_on_its_page() -> None:
    """Somebody adds a limit: docs/limits.md has its name, and a sentence for who is refused by it."""
    page = (ROOT / "docs" / "limits.md").read_text("utf-8")
    for scope in ("", PER_KEY, PER_SESSION):
        for what in WHAT:
            assert f"`{what}{scope}`".upper() in page
            refusal = told_of(Refusal(Ask(what + scope, "shop", "rate", 1, 5, 60.0), 1.0))
            assert refusal.message.startswith(WHO[scope]) and refusal.hint
    assert {f"`FIRSTWORD_{name.upper()}`" in page for name in ("shed_after", "max_turns", "max_image", "prices")} == {
        True
    }
