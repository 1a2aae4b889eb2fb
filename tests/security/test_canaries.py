"""Secrets are planted in every place that holds one, everything is made to fail, and nothing that is written has them.

Rules:
- What a server writes is all that leaves it: its log, its pages, its errors, its replies, and the words of commands.
- Of keys nothing may stand anywhere, in no spelling. What people said may stand in replies, and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import pytest
from api_of_a_test import Api, Serve
from caller import Heard, turn
from canaries import ALL, SAID, SECRETS, SETTINGS, Canary, environment, found
from command import Process
from events_of_a_test import PATH as EVENTS
from events_of_a_test import event, sign
from pydantic import SecretStr

from firstword.settings import Settings
from firstword.testing import Upstream, script

FIRSTWORD = str(Path(sys.executable).parent / "firstword")
PLANTED = str(Path(__file__).parent / "planted_app.py")
QUICK = {f"FIRSTWORD_{name}_TIMEOUT": "0.3" for name in ("FIRST_TOKEN", "STALL", "BODY", "TOOL", "CONNECT")}
QUICK |= {"FIRSTWORD_MAX_BODY": "60000", "FIRSTWORD_DRAIN_TIMEOUT": "1", "FIRSTWORD_WARM": "true"}


# --- the canaries themselves ----------------------------------------------------------------------


def holds_a_secret(annotation: Any) -> bool:
    """Return whether a setting of this type holds one."""
    return annotation is SecretStr or any(map(holds_a_secret, get_args(annotation)))


def test_every_secret_setting_is_planted() -> None:
    """Somebody adds a setting with a secret: it has to be planted below, so `canaries.SETTINGS` needs its line."""
    secret = [name for name, field in Settings.model_fields.items() if holds_a_secret(field.annotation)]
    assert sorted(secret) == sorted(SETTINGS)


@pytest.mark.parametrize(
    "write",
    [
        str,
        repr,
        json.dumps,
        quote,
        lambda text: quote(quote(text)),
        str.upper,
        lambda text: text.encode().hex(),
        lambda text: text[:16] + "...",
        *(
            lambda text, shift=shift: __import__("base64").b64encode(b"y" * shift + text.encode()).decode()
            for shift in range(4)
        ),
        lambda text: __import__("hashlib").sha256(text.encode()).hexdigest(),
    ],
)
def test_a_canary_is_found_however_it_is_written(write: Callable[[str], str]) -> None:
    """In quotes, in a URL, in base64 behind a user's name, cut off, as a hash."""
    canary = Canary.of("any")
    assert canary.stands_in(f"before {write(canary)} behind".encode())
    assert not canary.stands_in(f"before {write(Canary.of('another'))} behind".encode())


# --- all that can be provoked ---------------------------------------------------------------------


class Watch:
    """Takes down what leaves a server, and which canaries it gives away. `key` is what its callers send."""

    def __init__(self, process: Process, key: str) -> None:
        self.process = process
        self.caller = process.caller()
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.leaks: list[str] = []
        self.statuses: set[int] = set()

    async def asks(
        self, what: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Heard:
        """Send one request; a reply may say what people said, and nothing else may."""
        heard = await self.caller.hears(body, headers={**self.headers, **(headers or {})}, **more)
        self.takes(what, heard)
        return heard

    async def asks_half(self, body: Any) -> None:
        """Send a request whose body never ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.caller.url.rpartition(":")[2]))
        lines = [*self.headers.items(), ("host", "localhost"), ("content-length", "9999")]
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        writer.write(f"POST /chat/completions HTTP/1.1\r\n{head}\r\n{json.dumps(body)}".encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        self.statuses.add(int(answer.split(b" ")[1]))
        self._look("half a body", answer, ALL)

    def takes(self, what: str, heard: Heard) -> None:
        """Take a response down."""
        self.statuses.add(heard.status)
        is_reply = heard.status == 200 and b"choices" in heard.body
        self._look(f"{what}: headers", json.dumps(heard.headers).encode(), ALL)
        self._look(f"{what}: body", heard.body, SECRETS if is_reply else ALL)

    def _look(self, what: str, data: bytes, canaries: Mapping[str, Canary]) -> None:
        self.leaks += [f"{name} in {what}: {data[:300]!r}" for name in found(data, canaries)]

    def ends(self) -> list[str]:
        """Stop the server, and return all that was given away."""
        self.process.tell(signal.SIGTERM)
        self.process.ends()
        lines = self.process.output.splitlines()
        assert len(lines) > 20, "the log says nothing, so nothing was looked at"
        for line in lines:
            self._look("the log", line.encode(), ALL)
        assert "Traceback" not in self.process.output
        return self.leaks


def said(words: str = "", **fields: Any) -> dict[str, Any]:
    """Return a turn in which everybody has said something that is nobody's business."""
    messages = [
        {"role": "system", "content": f"You are helpful. {SAID['prompt']}"},
        {"role": "assistant", "content": SAID["transcript"]},
        {"role": "user", "content": f"{words} {SAID['transcript']}"},
    ]
    # Each is another user: the scripted model counts what it was asked by each.
    return turn(messages=messages, **{"user": f"{SAID['user']}{uuid.uuid4().hex}", **fields})


def echoes(key: str) -> Iterator[tuple[str, script.Script]]:
    """Yield answers of a model's server that repeats the key it was sent, in every place and spelling."""
    key = str(key)
    told = f"Incorrect API key provided: {key}. {quote(key, safe='')}"
    error = {"message": told, "type": "invalid_request_error", "param": key, "code": key, key: [key, {"of": told}]}
    bodies: list[Any] = [
        {"error": error},
        {"error": told},
        {"detail": told},
        {"message": told},
        [{"error": error}],
        told,
    ]
    for status in (400, 401, 403, 404, 409, 422, 429, 500, 503):
        passed = {
            "retry-after": key,
            "retry-after-ms": key,
            "x-should-retry": key,
            "x-request-id": key,
            "set-cookie": key,
        }
        yield f"a {status}", script.json_document({"error": error}, status, passed)
    for number, body in enumerate(bodies):
        yield f"form {number}", script.json_document(body, 400)
    yield "a page", script.json_document(told, 502, {"content-type": "text/html", "www-authenticate": key})
    yield "a redirect", script.json_document({}, 302, {"location": f"https://{quote(key)}.example/"})
    yield "an error as the first event", script.events(script.event({"error": error}))
    yield "an error in the middle", script.events(script.text("Well, "), script.event({"error": error}))
    yield "an error as a text", script.events(script.text("Well, "), script.event({"error": told}))


ENDINGS: Mapping[str, script.Script] = {
    "silence": script.never_answers(),
    "a stall": script.stalls_after("Well,"),
    "an end": script.closes_after("Well,"),
    "a reset": script.resets_after("Well,"),
    "no words": script.only_thinks("Let me think."),
    "no HTTP": [script.send("no HTTP at all\r\n\r\n", raw=True), script.close()],
    "half a chunk": script.events(script.text("Well,"), script.half_a_chunk()),
}


async def provoke_models(watch: Watch, keys: list[str], **named: Any) -> None:
    """Let the model succeed, and fail in every way."""
    assert (await watch.asks("a reply", said(**named))).status == 200
    assert (await watch.asks("a whole reply", said(stream=False, **named))).status == 200
    for stream in (True, False):
        for key in keys:
            for what, steps in echoes(key):
                await watch.asks(what, said(script=steps, stream=stream, **named))
        for what, steps in ENDINGS.items():
            await watch.asks(what, said(script=steps, stream=stream, **named))
    async with watch.caller.dials(said(script=script.stalls_after("Well,"), **named), headers=watch.headers) as call:
        await call.hears_word("Well,")
        call.hangs_up()


async def provoke_requests(watch: Watch, **named: Any) -> None:
    """Send what is refused, with secrets in every part of it."""
    wrong, words = SECRETS["wrong key"], SAID["prompt"]
    for name, value in (
        ("authorization", f"Bearer {wrong}"),
        ("authorization", f"Bearer two {wrong}"),
        ("api-key", f"{wrong} x"),
    ):
        await watch.asks("a wrong key", said(model="own"), headers={"authorization": "", name: value})
    for path in (f"/{quote(words)}", f"/s/{SAID['session'].core}/models", f"/x?key={quote(wrong)}"):
        await watch.asks("a path", method="GET", path=path)
    await watch.asks("a method", said(**named), method="PUT", path=f"/chat/completions?key={quote(wrong)}")
    for body in (
        words.encode(),
        json.dumps(said(**named)).encode()[:-9],
        b'{"a":1,"a":"%b"}' % words.encode(),
        [words],
    ):
        await watch.asks("a body", body)
    await watch.asks("a large body", said("x" * 70_000, **named))
    await watch.asks("a compressed body", said(**named), headers={"content-encoding": str(words)})
    await watch.asks_half({**said(**named)})
    for fields in (
        {"messages": str(words)},
        {"messages": [{"role": str(words)}]},
        {"stream": str(words)},
        {"tools": str(words)},
    ):
        await watch.asks("a field", {**said(**named), **fields})
    link = {"type": "image_url", "image_url": {"url": f"http://10.0.0.1/{SAID['image']}"}}
    await watch.asks("an image", {**said(**named), "messages": [{"role": "user", "content": [link]}]})
    call = {
        "call": {"id": SAID["session"], "customer": {"number": SAID["phone number"]}},
        "phoneNumber": SAID["phone number"],
    }
    await watch.asks("Vapi's call", {**said(**named), **call}, path="/vapi/chat/completions")
    agora = {"turn_id": 1, "channel": SAID["session"], "user_uid": SAID["user"], "timestamp": 1, "agent_id": "a"}
    for _ in range(2):
        await watch.asks(
            "Agora's turn", {**said(**named), **agora}, path=f"/agora/s/{SAID['session'].core}/chat/completions"
        )
    for page in ("/", "/docs", "/openapi.json", "/health", "/ready", "/models", "/v1/models", "/metrics"):
        for headers in (
            {},
            {"authorization": f"Bearer {wrong}"},
            {"authorization": f"Bearer {SECRETS['operator_key']}"},
            {"authorization": "", "x-forwarded-for": "1.2.3.4"},
        ):
            await watch.asks(page, method="GET", path=f"{page}?key={quote(wrong)}", headers=headers)


async def provoke_mistakes(watch: Watch) -> None:
    """Let every piece of code of the user's break, saying all it knows."""
    for where in ("before", "chunk", "stage", "end", "after", "own"):
        for stream in (True, False):
            await watch.asks(f"a mistake in {where}", said(f"breaks {where}", model="own", stream=stream))
    await watch.asks("an exit", said("exits", model="own"))
    await watch.asks("a refusal", said("refuses", model="own"))
    for tool in ("explodes", "exits", "answers", "fetches", "waits", str(SAID["tool argument"])):
        for arguments in (
            json.dumps({"what": SAID["tool argument"]}),
            json.dumps({SAID["tool argument"]: 1}),
            SAID["tool argument"],
        ):
            call = script.events(
                script.tool_call(tool, str(arguments), id="c1"), script.finish("tool_calls"), script.done()
            )
            await watch.asks(f"the tool {tool}", said(scripts=[call, script.events(script.says("Done."))]))
    sound = {"modalities": ["text", "audio"], "audio": {"format": "pcm16"}, "model": "own"}
    for words in ("Hello", "breaks aloud"):
        await watch.asks("a voice", said(words, **sound))
    body = event(110, {"errors": [{"message": str(SAID["event"])}], "transcript": SAID["event"]})
    signed = sign(body, SECRETS["agora_webhook_secret"])
    for signature in (signed, "", SECRETS["signature"], "0" * 64):
        await watch.asks("an event", body, path=EVENTS, headers={"agora-signature-v2": signature})


@contextlib.contextmanager
def served(folder: Path, *command: str, **variables: str) -> Iterator[Process]:
    """Run `firstword serve`, with every variable of the environment that is not named left out."""
    known = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **QUICK, **variables}
    process = Process([FIRSTWORD, "serve", *command, "--host", "127.0.0.1", "--port", "0"], folder, known)
    try:
        yield process
    finally:
        process.kill()


@pytest.mark.timeout(120)
async def test_a_server_with_every_secret_gives_none_away(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    """Gate keys, keys of providers, tools, voices, proxies and webhooks; whatever fails, it says so without them."""
    api = Api(serve)
    for path in ("/tool", "/v1/audio/speech"):
        told = " ".join([*SECRETS.values(), SAID["tool result"]])
        api.says(path, {"error": told}, status=401, retry_after=SECRETS["tool key"])
    planted = {
        **environment(),
        "LLM_BASE_URL": upstream.base_url,
        "ELSEWHERE": api.url,
        "PLANTED": json.dumps(ALL),
        "TOOL_KEY": SECRETS["tool key"],
        "MCP_KEY": SECRETS["mcp key"],
        "HTTPS_PROXY": f"http://user:{quote(SECRETS['proxy password'], safe='')}@127.0.0.1:9",
    }
    with served(tmp_path, PLANTED, **planted) as process:
        watch = Watch(process, SECRETS["keys"])
        await provoke_models(watch, [SECRETS["api_key"]], model="m1")
        await provoke_requests(watch, model="own")
        await provoke_mistakes(watch)
        async with watch.caller.dials(said("waits", model="own"), headers=watch.headers) as call:
            await call.hears_word("Well,")
            leaks = await asyncio.to_thread(watch.ends)
    assert leaks == []
    assert {200, 400, 401, 404, 405, 408, 413, 500} <= watch.statuses
    for line in ("mistake in a tool", "outcome=refused", "outcome=timed_out", "name= outcome=unknown", "event=110"):
        assert line in process.output, f"nobody provoked it: {line}"


@pytest.mark.timeout(120)
async def test_a_server_that_passes_keys_on_gives_none_away(upstream: Upstream, tmp_path: Path) -> None:
    """Each caller's own key goes through, and a model's server repeats it in its errors."""
    key = SECRETS["callers own key"]
    with served(tmp_path, LLM_BASE_URL=upstream.base_url) as process:
        watch = Watch(process, key)
        await provoke_models(watch, [key])
        await provoke_requests(watch)
        leaks = await asyncio.to_thread(watch.ends)
    assert leaks == []
    assert {200, 400, 401, 404, 405, 408, 413, 429, 502, 504} <= watch.statuses


async def test_a_server_of_one_machine_gives_nothing_away(upstream: Upstream, tmp_path: Path) -> None:
    """It holds a key, and refuses whoever comes through a proxy."""
    with served(tmp_path, LLM_BASE_URL=upstream.base_url, LLM_API_KEY=SECRETS["api_key"]) as process:
        watch = Watch(process, "")
        await provoke_models(watch, [SECRETS["api_key"]])
        away = await watch.asks("a stranger", said(), headers={"x-forwarded-for": SECRETS["wrong key"]})
        assert away.status == 403
        leaks = await asyncio.to_thread(watch.ends)
    assert leaks == []
