"""Replies that are sound, in the form that Agora documents: their chunks, what else leaves, and whose they are."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller
from served import Served
from sounds import AUDIO, audios, is_framed, pcm_of, spoken, tones, transcript

from firstword import App
from firstword.errors import VoiceError
from firstword.testing import Upstream, says, script, talk
from firstword.voices import Sound, Word
from firstword.voices._pcm import read_wav

FRIEND = "Hello there, friend. How are you?"
GREETING = [{"role": "assistant", "content": "Welcome!"}]


async def timed(text: str) -> Sound:
    """Be a voice that knows when each word is said."""
    words = text.split()
    return Sound(tones(text), tuple(Word(word, at * 0.2, at * 0.2 + 0.2) for at, word in enumerate(words)))


# --- the chunks -------------------------------------------------------------------------------------


async def test_a_reply_has_the_form_of_the_contract() -> None:
    """One id, created and model; one role, first; sound of 40 ms a chunk; one ending; and `[DONE]`."""
    score = await talk(spoken(timed), models=says(FRIEND), request=AUDIO)

    first, *middle, last = score.chunks
    for chunk in score.chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert [chunk[name] for name in ("id", "created", "model")] == [
            first[name] for name in ("id", "created", "model")
        ]
        assert [choice["index"] for choice in chunk["choices"]] == [0]
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert all(set(chunk["choices"][0]["delta"]) == {"audio"} for chunk in middle)
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in (first, *middle))
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert is_framed(score)
    assert (score.done, score.error, score.status) == (True, None, 200)
    assert score.headers["content-type"] == "text/event-stream; charset=utf-8"


async def test_each_frame_has_its_words_and_their_times_in_ms() -> None:
    """`words` has text, start_ts, end_ts and duration, counted from the beginning of the reply's sound."""
    found = audios((await talk(spoken(timed), models=says(FRIEND), request=AUDIO)).chunks)

    assert len({each["id"] for each in found}) == 1
    assert "".join(each["transcript"] for each in found) == FRIEND
    told = [(at, each["transcript"], each["words"]) for at, each in enumerate(found) if "words" in each]
    assert told[:2] == [
        (0, "Hello ", [{"text": "Hello", "start_ts": 0, "end_ts": 200, "duration": 200}]),
        (5, "there, ", [{"text": "there,", "start_ts": 200, "end_ts": 400, "duration": 200}]),
    ]
    assert [word["text"] for _, _, words in told for word in words] == FRIEND.split()
    assert all(word["start_ts"] // 40 == at for at, _, words in told for word in words)
    assert all(set(each) == {"id", "data", "transcript"} for each in found if "words" not in each)


async def test_no_text_leaves_beside_the_sound() -> None:
    """The transcript enters the engine's memory; words in `content` would be spoken by its own voice as well."""
    score = await talk(spoken(), models=says(FRIEND), request=AUDIO)
    assert all("content" not in chunk["choices"][0]["delta"] for chunk in score.chunks)


async def test_reasoning_is_neither_said_nor_sent() -> None:
    """It is for nobody to hear."""
    model = script.events(script.role(), script.reasoning("hm"), script.words(FRIEND), script.finish(), script.done())
    score = await talk(spoken(), models=model, request=AUDIO)

    assert transcript(score) == FRIEND
    assert "hm" not in str([chunk["choices"][0]["delta"].keys() for chunk in score.chunks])


async def test_a_refusal_is_said() -> None:
    """Its words stand in a field of their own."""
    refusal = script.event(script.chunk({"refusal": "I cannot do that."}))
    score = await talk(
        spoken(), models=script.events(script.role(), refusal, script.finish(), script.done()), request=AUDIO
    )
    assert transcript(score) == "I cannot do that."


async def test_a_call_of_the_engines_tool_leaves_in_its_strict_form_behind_the_sound() -> None:
    """The engine runs it, and asks again."""
    calls = script.events(
        script.role(), script.words("I will hang up now."), script.tool_call("hang_up", '{"why":', id="call_1"),
        script.tool_call("", '"done"}'), script.finish("tool_calls"), script.done(),
    )  # fmt: skip
    score = await talk(spoken(), models=calls, request=AUDIO)

    deltas = [chunk["choices"][0]["delta"] for chunk in score.chunks]
    last_sound = max(at for at, delta in enumerate(deltas) if "audio" in delta)
    called = [call for delta in deltas[last_sound + 1 :] for call in delta.get("tool_calls", [])]
    assert "".join(call["function"]["arguments"] for call in called) == '{"why":"done"}'
    assert called[0]["id"] == "call_1" and called[0]["function"]["name"] == "hang_up"
    assert score.finish_reason == "tool_calls"
    assert score.done


async def test_the_count_of_tokens_leaves_behind_the_ending() -> None:
    """It has no choices, and is asked for by `stream_options`."""
    model = script.events(script.role(), script.words(FRIEND), script.finish(), script.usage(), script.done())
    score = await talk(spoken(), models=model, request={**AUDIO, "stream_options": {"include_usage": True}})

    assert score.chunks[-1]["choices"] == []
    assert score.chunks[-1]["usage"]["total_tokens"] > 0
    assert score.finish_reason == "stop"


async def test_a_blank_answer_is_a_whole_reply_without_a_sound() -> None:
    """There is nothing to say, and no apology: as for text."""
    model = script.events(script.role(), script.words("  "), script.finish(), script.done())
    score = await talk(spoken(), models=model, request=AUDIO)

    assert (score.status, score.done, score.finish_reason, score.sound) == (200, True, "stop", [])
    assert score.chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


async def test_a_reply_in_one_piece_is_a_message_with_all_of_the_sound() -> None:
    """OpenAI's shape, without the pace: nobody listens to it while it is made."""
    score = await talk(spoken(), models=says(FRIEND), request=AUDIO, stream=False)

    assert score.ended == 0.0
    [choice] = score.chunks[0]["choices"]
    assert choice["finish_reason"] == "stop"
    message = choice["message"]
    assert (message["role"], message["content"]) == ("assistant", None)
    assert set(message["audio"]) == {"id", "expires_at", "data", "transcript"}
    assert message["audio"]["transcript"] == FRIEND
    pcm, rate_hz = read_wav(a2b_base64(message["audio"]["data"]))
    assert rate_hz == 16_000
    assert len(pcm) == len(tones(FRIEND))


async def test_a_reply_in_one_piece_has_the_format_that_was_asked_for() -> None:
    """`pcm16` is the samples alone; what is made by an encoder is refused in a sentence."""
    for form, begins in (("pcm16", tones(FRIEND)[:100]), ("wav", b"RIFF")):
        request = {**AUDIO, "audio": {"format": form}}
        score = await talk(spoken(), models=says(FRIEND), request=request, stream=False)
        assert a2b_base64(score.chunks[0]["choices"][0]["message"]["audio"]["data"]).startswith(begins)
    score = await talk(spoken(), request={**AUDIO, "audio": {"format": "mp3"}}, stream=False)
    assert score.status == 400
    assert score.error is not None and score.error["param"] == "audio.format"
    assert (await talk(spoken(), request={**AUDIO, "audio": {"format": "mp3"}})).status == 200


async def test_a_reply_in_one_piece_is_bounded() -> None:
    """Somebody has a book read out: 260 seconds of speech would be 11 MB."""
    score = await talk(spoken(), models=says("One two three four five. " * 260), request=AUDIO, stream=False)
    assert score.status == 502
    assert score.error is not None and "lasts more than 240 seconds" in score.error["message"]


# --- failures of the voice --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "code"), [("no sound", "voice_error"), (b"RIFF\x00\x00\x00\x00WAVE", "voice_error"), (5, "voice_error")]
)
async def test_what_is_no_sound_is_told_before_anything_is_sent(result: Any, code: str) -> None:
    """A voice function has a mistake: a true status, also when there is an apology, which it could not say."""

    async def voice(text: str) -> Any:
        return result

    for settings in ({}, {"apology": "Sorry."}):
        score = await talk(spoken(voice, **settings), models=says(FRIEND), request=AUDIO)
        assert score.status == 502
        assert score.error is not None and score.error["code"] == code
        assert "friend" not in score.error["message"]


async def test_a_reply_that_is_marks_only_is_silence_with_a_transcript() -> None:
    """There is nothing that a voice could say, and still something for the engine's memory."""
    score = await talk(spoken(apology="Sorry."), models=says("★"), request=AUDIO)
    assert score == [(0.0, "★")]
    assert pcm_of(score) == bytes(1280)


@pytest.mark.parametrize(
    ("failure", "settings", "ends"),
    [
        (VoiceError("It broke."), {}, True),
        (VoiceError("It broke."), {"apology": "Sorry."}, True),
        (VoiceError("It broke."), {"on_cut": "error"}, False),
        (RuntimeError("canary"), {"on_cut": "finish"}, True),
    ],
    ids=["usual", "apology", "error", "mistake"],
)
async def test_a_voice_that_fails_after_the_first_sound_ends_the_reply(
    failure: Exception, settings: dict[str, Any], ends: bool
) -> None:
    """A dropped line is worse than a short reply: what was said is heard, then the ending and `[DONE]`."""
    count = 0

    async def voice(text: str) -> bytes:
        nonlocal count
        count += 1
        if count > 1:
            raise failure
        return tones(text)

    score = await talk(spoken(voice, **settings), models=says("One. Two. Three."), request=AUDIO)

    assert transcript(score) == "One. "
    assert (score.status, score.done, score.finish_reason) == (200, ends, "stop" if ends else None)
    assert score.turn is not None and score.turn.error is not None
    assert "canary" not in str(score.chunks)


async def test_a_voice_that_fails_before_the_first_sound_leaves_no_task_and_no_connection() -> None:
    """The model is in the middle of its answer; `talk` raises when something is left open."""

    async def voice(text: str) -> bytes:
        raise VoiceError("It broke.", status=504)

    score = await talk(spoken(voice), models=says(FRIEND * 20, every=0.2), request=AUDIO)
    assert score.status == 504
    assert score.left_open == 0
    assert score.ended < 1.0


# --- what it costs who does not use it --------------------------------------------------------------


def test_nothing_of_it_is_imported_before_the_first_sound() -> None:
    """An App that serves text does not load the stage, nor any voice."""
    code = """
import asyncio, sys
from firstword import App
from firstword.testing import says, talk
asyncio.run(talk(App(model="m"), models=says("hi")))
print(sorted(name for name in sys.modules if "voices" in name or name.endswith("speak")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# --- over a real wire -------------------------------------------------------------------------------


async def test_an_engine_hears_sound_over_a_real_wire(upstream: Upstream, serve: Callable[[App], Served]) -> None:
    """Under uvicorn, in real time: 1.4 seconds of sound, and no less than 0.4 until its end."""
    app = App(base_url=upstream.base_url)
    app.voice(tones)
    caller = Caller(serve(app).url)
    began = asyncio.get_running_loop().time()
    heard = await caller.hears(
        {"model": "m", "stream": True, "messages": [{"role": "user", "content": "One two three four five six seven."}]}
        | AUDIO
    )
    lasted = asyncio.get_running_loop().time() - began

    assert heard.status == 200
    assert heard.done
    assert "".join(each["transcript"] for each in audios(heard.chunks)) == "One two three four five six seven."
    assert lasted > 0.4
