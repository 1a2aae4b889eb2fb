"""Sound to the moment: it comes soon, at the pace at which it is heard, and stops when the caller does.

On the clock that jumps. The voices are functions that take a known time; `test_aloud_measured.py` has a real one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sounds import AUDIO, PER_WORD, gaps, is_framed, most_ahead, pcm_of, sine, spoken, tones, transcript

from firstword import clock
from firstword.stages.speak import LEAD
from firstword.testing import Score, after, cuts, drips, fails, says, script, silent, stalls, talk, then
from firstword.testing.clock import run
from firstword.testing.talk import Phone

FIVE = "One two three four five. "
FRAME = 0.04
FILLER = "One moment. "
SORRY = "I am sorry."


async def test_sound_leaves_at_most_a_second_before_it_is_heard() -> None:
    """A model that is much faster than speech: 30 words, 6 seconds of sound, all of its text there at once."""
    score = await talk(spoken(), models=says(FIVE * 6), request=AUDIO)

    assert transcript(score) == FIVE * 6
    assert len(pcm_of(score)) == 32_000 * PER_WORD * 30
    assert is_framed(score)
    assert score.sound[0][0] == 0.0
    assert most_ahead(score.sound) == pytest.approx(LEAD)
    assert gaps(score.sound) == 0.0
    assert score.ended == pytest.approx(6.0 - LEAD)
    assert (score.done, score.finish_reason, score.left_open) == (True, "stop", 0)


@pytest.mark.parametrize("leaves", [0.5, 2.0, 4.0])
async def test_a_caller_who_interrupts_costs_a_second_of_sound_at_most(leaves: float) -> None:
    """Barge-in: what was sent is what was heard, and `LEAD`."""
    score = await talk(spoken(), models=says(FIVE * 6), request=AUDIO, leaves=leaves)

    assert len(pcm_of(score)) / 32_000 <= leaves + LEAD + 1e-6
    assert len(pcm_of(score)) / 32_000 > leaves + LEAD - 2 * FRAME
    assert score.ended == leaves
    assert not score.done
    assert score.left_open == 0


async def test_the_first_clause_is_heard_while_the_model_still_writes() -> None:
    """A word each 0.1 s: the first clause ends with the fourth word, and the blank behind it comes with the fifth."""
    score = await talk(spoken(), models=drips("Well then, my friend, this is a long story.", every=0.1), request=AUDIO)

    assert score[0] == (0.5, "Well then, my friend, ")
    assert transcript(score) == "Well then, my friend, this is a long story."
    assert most_ahead(score.sound) <= LEAD + 1e-6


async def test_a_pause_of_the_model_is_no_debt_to_be_caught_up() -> None:
    """Five seconds of silence between two sentences: the second is not sent faster than it is heard."""
    model = script.events(
        script.role(), script.words(FIVE), script.wait(4.0), script.words(FIVE * 4), script.finish(), script.done()
    )
    score = await talk(spoken(), models=model, request=AUDIO)

    assert gaps(score.sound) == pytest.approx(3.0)
    assert most_ahead(score.sound) == pytest.approx(LEAD)


async def test_half_a_sentence_is_said_when_the_model_pauses() -> None:
    """A model stops in the middle of a sentence, as before it calls a tool: its words are not kept for seconds."""
    model = script.events(
        script.role(), script.words("Let me look"), script.wait(3.0), script.words(". Here."), script.finish(),
        script.done(),
    )  # fmt: skip
    score = await talk(spoken(), models=model, request=AUDIO)

    assert score[0] == (0.5, "Let me look")
    assert transcript(score) == "Let me look. Here."


async def test_a_sentence_is_made_while_the_one_before_is_heard() -> None:
    """A voice that takes 0.8 s for a sentence of one second: after the first nobody waits for it."""

    async def slow(text: str) -> bytes:
        await asyncio.sleep(0.8)
        return tones(text)

    score = await talk(spoken(slow), models=says(FIVE * 5), request=AUDIO)

    assert score.sound[0][0] == 0.8
    assert gaps(score.sound) == 0.0
    assert most_ahead(score.sound) <= LEAD + 1e-6


async def test_a_voice_is_not_kept_within_a_sentence_while_the_ones_before_are_heard() -> None:
    """A long reply, half a minute of it made at once: what the voice needs, a process, is free for other calls."""
    took: list[float] = []

    async def noted(text: str) -> AsyncIterator[bytes]:
        began = clock.now()
        for word in text.split():
            yield tones(word)
        took.append(clock.now() - began)

    score = await talk(spoken(noted), models=says(FIVE * 30), request=AUDIO)

    assert transcript(score) == FIVE * 30
    assert (len(took), max(took)) == (30, 0.0)
    assert most_ahead(score.sound) == pytest.approx(LEAD)


async def test_a_voice_that_streams_is_heard_from_its_first_piece() -> None:
    """A speech endpoint gives 0.1 s of sound each 0.05 s."""

    async def streams(text: str) -> AsyncIterator[bytes]:
        for _ in range(10):
            await asyncio.sleep(0.05)
            yield sine(0.1, 440)

    score = await talk(spoken(streams), models=says(FIVE), request=AUDIO)

    assert score.sound[0][0] == 0.05
    assert gaps(score.sound) == pytest.approx(0.0, abs=0.021)
    assert len(pcm_of(score)) == 32_000


async def test_a_voice_slower_than_real_time_is_told_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    """Callers hear gaps, and the operator has to learn why; not with each sentence."""

    async def slow(text: str) -> AsyncIterator[bytes]:
        for _ in range(5):
            await asyncio.sleep(0.4)
            yield sine(0.2, 440)

    app = spoken(slow)

    async def main() -> None:
        async with Phone(app, models=says(FIVE * 3)) as phone:
            for _ in range(2):
                assert gaps((await phone.talk(request=AUDIO)).sound) > 1.0

    with caplog.at_level(logging.WARNING, "firstword"):
        await run(main)
    assert [record.message for record in caplog.records if "slower" in record.message] == [
        "voice is slower than real time, so callers hear gaps voice=OwnVoice(slow)"
    ]


async def test_a_model_that_pauses_is_no_slow_voice(caplog: pytest.LogCaptureFixture) -> None:
    """The voice is quick; there was nothing to say."""
    with caplog.at_level(logging.WARNING, "firstword"):
        await talk(spoken(), models=drips(FIVE * 2, every=1.0), request=AUDIO)
    assert "slower" not in caplog.text


async def test_a_voice_that_hangs_is_not_waited_for_without_end() -> None:
    """It never gives a sound: 504 after `stall_timeout`, nothing was sent."""

    async def hangs(text: str) -> bytes:
        await asyncio.sleep(1000.0)
        return b""

    score = await talk(spoken(hangs), models=says(FIVE), request=AUDIO, stall_timeout=3.0)

    assert (score.status, score.ended) == (504, 3.0)
    assert score.error is not None and score.error["code"] == "voice_error"
    assert "said nothing for 3 seconds" in score.error["message"]


async def test_the_time_that_sound_takes_is_no_time_of_the_turn() -> None:
    """Twenty seconds of speech in a turn that may take five: its words were there at once."""
    score = await talk(spoken(turn_timeout=5.0), models=says(FIVE * 20), request=AUDIO)

    assert score.done
    assert score.ended == pytest.approx(19.0)


async def test_a_model_that_hangs_is_still_cut_off_in_time() -> None:
    """Its one sentence lasts a second, and makes the turn a second longer."""
    score = await talk(spoken(turn_timeout=5.0), models=stalls(FIVE), request=AUDIO, stall_timeout=60.0)

    assert score.ended == pytest.approx(6.0)
    assert (score.status, score.done, transcript(score)) == (200, False, FIVE)


# --- what else is said ------------------------------------------------------------------------------


async def test_a_filler_is_said_aloud() -> None:
    """The model is silent for two seconds."""
    score = await talk(spoken(fillers=[FILLER], fill_after=0.5), models=after(2.0, says(FIVE)), request=AUDIO)

    assert score == [(0.5, FILLER), (2.0, FIVE)]
    assert is_framed(score)
    assert len({chunk["id"] for chunk in score.chunks}) == 1
    roles = [choice["delta"].get("role") for chunk in score.chunks for choice in chunk["choices"]]
    assert roles.count("assistant") == 1
    assert roles[0] == "assistant"


async def test_the_apology_is_said_aloud_before_anything_was_heard() -> None:
    """The model fails at once, and again."""
    score = await talk(spoken(apology=SORRY), models=fails(500), request=AUDIO)

    assert (score.status, score.done, score.finish_reason) == (200, True, "stop")
    assert score == [(0.1, SORRY)]
    assert len(pcm_of(score)) == pytest.approx(32_000 * PER_WORD * 3, abs=1280)
    assert score.turn is not None and score.turn.apologised


async def test_the_apology_is_said_aloud_behind_the_words_that_came() -> None:
    """The model is cut off two seconds into its answer; what it said is heard to its end."""
    model = script.events(script.role(), script.words(FIVE), script.wait(0.5), script.words("And then"), script.close())
    score = await talk(spoken(apology=SORRY), models=model, request=AUDIO)

    assert transcript(score) == f"{FIVE}And then {SORRY}"
    assert (score.status, score.done, score.finish_reason) == (200, True, "stop")
    assert score.turn is not None and score.turn.apologised and score.turn.reply.truncated
    assert score.turn.error is not None and score.turn.error.code == "upstream_truncated"


async def test_words_that_nobody_has_begun_to_hear_are_not_said_before_an_apology() -> None:
    """The model is cut off before the first sound: then the apology is all there is, as for any early failure."""

    async def slow(text: str) -> bytes:
        await asyncio.sleep(0.3)
        return tones(text)

    score = await talk(spoken(slow, apology=SORRY), models=cuts("One two. Three four"), request=AUDIO)

    assert transcript(score) == SORRY
    assert score.done


@pytest.mark.parametrize(("model", "status"), [(fails(400), 400), (fails(401), 401), (cuts("One two"), 502)])
async def test_an_error_before_the_first_sound_has_its_status(model: Any, status: int) -> None:
    """There is no apology: the engine has words of its own for a failure."""

    async def slow(text: str) -> bytes:
        await asyncio.sleep(0.3)
        return tones(text)

    score = await talk(spoken(slow), models=model, request=AUDIO)

    assert score.status == status
    assert score.sound == []


@pytest.mark.parametrize(("on_cut", "done"), [("finish", True), ("error", False)])
async def test_a_cut_ends_as_the_policy_says(on_cut: str, done: bool) -> None:
    """`finish` is an ending without a word, `error` an event that says so; the sound that came is heard in both."""
    model = script.events(script.role(), script.words(FIVE), script.wait(0.5), script.close())
    score = await talk(spoken(apology=SORRY, on_cut=on_cut), models=model, request=AUDIO)

    assert transcript(score) == FIVE
    assert score.done is done
    assert (score.error is None) is done


async def test_a_silent_model_is_apologised_for() -> None:
    """It ends its answer without a word."""
    model = script.events(script.role(), script.finish(), script.done())
    score = await talk(spoken(apology=SORRY), models=model, request=AUDIO)

    assert score == [(0.0, SORRY)]
    assert score.done


async def test_a_silent_line_has_filler_and_apology() -> None:
    """The model never answers."""
    app = spoken(fillers=[FILLER], fill_after=0.5, apology=SORRY)
    assert await talk(app, models=silent(), request=AUDIO) == [(0.5, FILLER), (4.0, SORRY)]


async def test_a_tool_runs_while_its_filler_is_heard() -> None:
    """The sound of both answers is one reply, and word times go on through it."""
    app = spoken()

    @app.tool(filler="Let me look. ")
    async def balance() -> str:
        """Say how much money there is."""
        await asyncio.sleep(2.0)
        return "five euros"

    calls = script.events(script.role(), script.tool_call("balance", "{}", id="c1"), script.finish("tool_calls"))
    score = await talk(app, models=then(calls, says("You have five euros.")), request=AUDIO)

    assert score == [(0.0, "Let me look. "), (2.0, "You have five euros.")]
    assert "modalities" not in score.seen[0].body
    assert len({chunk["id"] for chunk in score.chunks}) == 1


@pytest.mark.parametrize("later", [0.3, 1.5])
async def test_sound_that_is_sent_again_just_ends(later: float) -> None:
    """Agora's engine asks again, before the first word and in the middle: it hears the later one, and of no error."""
    model = drips("Well then, my friend, this is a long story.", every=0.1)
    asked = {**AUDIO, "session_id": "s1", "turn_id": 1}

    async def main() -> tuple[Score, Score]:
        async with Phone(spoken(platform="agora", apology=SORRY), models=model) as phone:
            first = asyncio.ensure_future(phone.talk(request=asked))
            await asyncio.sleep(later)
            second = await phone.talk(request=asked)
            return await first, second

    first, second = await run(main)
    assert (first.status, first.error, first.finish_reason, first.done) == (200, None, "stop", True)
    assert bool(first.sound) == (later > 1) and SORRY not in transcript(first)
    assert transcript(second) == "Well then, my friend, this is a long story."
