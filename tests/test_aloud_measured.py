"""The endpoint of audio played into a WAV file, which sox measures: a real voice, a real wire, real time."""

from __future__ import annotations

import json
import subprocess
import time
from binascii import a2b_base64
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from caller import Caller, Heard
from served import Served
from sounds import audios, gaps, most_ahead, needs_espeak

from firstword import App
from firstword.stages.speak import LEAD
from firstword.testing import Upstream
from firstword.voices._pcm import wav

TEXT = "Thank you for calling. Your order was sent on Tuesday, and it costs 12.50 euros. Is there anything else?"


def frames(heard: Heard) -> list[tuple[float, bytes]]:
    """Return each frame of sound with the time at which it arrived."""
    found, rest = [], b""
    for at, data in heard.reads:
        *events, rest = (rest + data).split(b"\n\n")
        chunks: list[dict[str, Any]] = [json.loads(event[6:]) for event in events if event.startswith(b"data: {")]
        found += [(at, a2b_base64(audio["data"])) for audio in audios(chunks)]
    return found


def measured(*command: str) -> str:
    """Return what sox says of a file."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout + done.stderr


@needs_espeak
async def test_a_reply_played_into_a_file_is_speech_of_its_text(
    upstream: Upstream, serve: Callable[[App], Served], tmp_path: Path
) -> None:
    """Rate, channels and width as documented; as long as it took; loud; no gap; and its words in order."""
    caller = Caller(serve(App(base_url=upstream.base_url, voice="espeak")).url)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": TEXT}]}
    began = time.monotonic()
    heard = await caller.hears(body, path="/audio/chat/completions")
    lasted = time.monotonic() - began

    sound = frames(heard)
    pcm = b"".join(data for _, data in sound)
    seconds = len(pcm) / 32_000
    file = tmp_path / "reply.wav"
    file.write_bytes(wav(pcm))

    assert heard.done and heard.finish_reasons == ["stop"]
    assert [measured("soxi", option, str(file)).strip() for option in ("-r", "-c", "-b", "-e")] == [
        "16000", "1", "16", "Signed Integer PCM",
    ]  # fmt: skip
    assert float(measured("soxi", "-D", str(file))) == seconds
    assert 4.0 < seconds < 12.0
    told = dict(line.rsplit(":", 1) for line in measured("sox", str(file), "-n", "stat").splitlines() if ":" in line)
    numbers = {" ".join(name.split()): float(value) for name, value in told.items() if value.strip()}
    assert numbers["RMS amplitude"] > 0.02
    assert numbers["Maximum amplitude"] < 1.0
    assert 200 < numbers["Rough frequency"] < 4000

    assert sound[0][0] - began < 1.0
    assert seconds - LEAD - 0.1 < lasted < seconds + 2.0
    assert most_ahead(sound) < LEAD + 0.5  # what waits in sockets arrives together
    assert gaps(sound) < 0.5

    found = audios(heard.chunks)
    assert "".join(each["transcript"] for each in found) == TEXT
    words = [word for each in found for word in each.get("words", ())]
    assert " ".join(word["text"] for word in words) == TEXT
    assert all(before["end_ts"] <= after["start_ts"] + 1 for before, after in pairwise(words))
    assert all(word["duration"] == word["end_ts"] - word["start_ts"] > 0 for word in words)
    assert words[-1]["end_ts"] <= seconds * 1000
