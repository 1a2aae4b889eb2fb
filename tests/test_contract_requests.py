"""What a voice engine sends, and what of it the model gets: golden requests, and whatever nobody has thought of yet."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from caller import Caller, Heard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from served import Served

from firstword import App, Turn
from firstword.platforms import Asked, agora
from firstword.providers import openai
from firstword.server.request import read_json
from firstword.testing import Record, Upstream, script

Json = dict[str, Any]

SYSTEM = {"role": "system", "content": "Be brief."}
JOKE = {"role": "user", "content": "Tell me a joke"}


class Line:
    """A server between a caller and the scripted model. Both ends of a turn, and its hook, remember what they saw."""

    def __init__(self, upstream: Upstream, **settings: Any) -> None:
        self.turns: list[Turn] = []
        app = App(base_url=upstream.base_url, **settings)
        app.before_turn(self.turns.append)
        self.server = Served(app)
        self._caller = Caller(self.server.url)
        self._upstream = upstream

    async def asks(self, body: Json, path: str = "/chat/completions", **headers: str) -> tuple[Heard, Record]:
        """Send `body`; return the reply, which must be a good one, and what the model's server saw."""
        marker = uuid.uuid4().hex
        heard = await self._caller.hears({**body, "user": marker}, path=path, headers=headers)
        assert heard.status == 200, heard.body
        [record] = await self._upstream.wait_settled(marker)
        return heard, record

    async def relays(self, body: Json, **more: Any) -> Json:
        """Send `body` and return the body that the model got, without the mark of this test."""
        _, record = await self.asks(body, **more)
        return {name: value for name, value in record.body.items() if name != "user"}


@pytest.fixture(scope="module")
def _line(upstream: Upstream) -> Iterator[Line]:
    line = Line(upstream, model="m0")
    yield line
    line.server.stop()


@pytest.fixture
def line(_line: Line) -> Line:
    """The plain server, which has seen nothing yet; a request without a model gets `m0`."""
    _line.turns.clear()
    return _line


# --- the golden requests -----------------------------------------------------------------------------

R1 = json.loads(
    '{"model":"m1","stream":true,"temperature":0.7,"max_tokens":150,"messages":['
    '{"role":"system","content":"Be brief."},{"role":"assistant","content":"Hi, how can I help?"},'
    '{"role":"user","content":"Tell me a joke"}]}'
)
R2 = json.loads("""
{"model":"m1","stream":true,"turn_id":4,"timestamp":1767000035000,"interruptable":true,"messages":[
 {"role":"system","content":"Be brief."},
 {"role":"assistant","content":"Hi!","turn_id":1,"timestamp":1767000001000,"metadata":{"source":"greeting"}},
 {"role":"user","content":"Tell me a joke","turn_id":2,"timestamp":1767000010000,
  "metadata":{"source":"asr","user":"1002"}},
 {"role":"assistant","content":"Why did the ","turn_id":2,"timestamp":1767000011000,
  "metadata":{"source":"llm","interrupted":true,"interrupt_timestamp":1767000012500,
              "original":"Why did the chicken cross the road? To get to the other side."}},
 {"role":"assistant","content":"Are you still there?","turn_id":3,"timestamp":1767000030000,
  "metadata":{"source":"silence"}},
 {"role":"user","content":"A story instead","turn_id":4,"timestamp":1767000035000,
  "metadata":{"source":"asr","user":"1002"}}]}
""")
R3 = json.loads("""
{"model":"m1","stream":true,"app_id":"A1","channel":"room-7","user_uid":"1002","agent_uid":"1001",
 "context":{"presence":{"1002":{"selection":"Pythagorean theorem"}}},"turn_id":5,"timestamp":1767000100000,
 "messages":[{"role":"user","content":"What does this mean?","turn_id":5,"timestamp":1767000100000,
  "metadata":{"source":"asr","user":"1002","vpids":["speaker1"]}}]}
""")
DATA_URL = "data:image/png;base64,iVBORw0KGgo="
R4 = {
    "model": "m1",
    "stream": True,
    "messages": [
        {"role": "user", "content": [{"type": "image", "image_url": "https://example.com/a.png"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}},
                {"type": "image", "image_url": DATA_URL},
                {"type": "image_url", "image_url": "https://example.com/b.png", "cache": {"ttl": 5}},
            ],
        },
    ],
}
R4_LEAVES = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}},
            {"type": "image_url", "image_url": {"url": DATA_URL}},
            {"type": "image_url", "image_url": {"url": "https://example.com/b.png"}, "cache": {"ttl": 5}},
        ],
    },
]
R5 = {
    "modalities": ["audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "stream": True,
    "messages": [{"role": "assistant", "content": "Welcome!"}],
}
R6 = {"model": "m1", "stream": True, "messages": [SYSTEM, {"role": "user", "content": ""}]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
R7 = {
    "model": "m1",
    "stream": True,
    "messages": [
        {"role": "user", "content": "Weather in Paris?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"celsius":21}'},
    ],
    "tools": [WEATHER],
}


async def test_a_plain_request_leaves_as_it_came(line: Line) -> None:
    """R1: system, greeting, a question, and two sampling parameters."""
    heard, record = await line.asks(R1)

    assert record.body == {**R1, "user": record.marker}
    assert (heard.text, heard.finish_reasons, heard.done) == ("Tell me a joke", ["stop"], True)
    assert (record.method, record.path) == ("POST", "/v1/chat/completions")
    assert dict(record.headers) == {
        "host": record.header("host"),
        "content-type": "application/json",
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "user-agent": "firstword",
        "content-length": record.header("content-length"),
    }


async def test_nothing_of_the_engine_reaches_the_model(line: Line) -> None:
    """R2, `vendor: custom`: a greeting, an interrupted reply, a silence reminder; two assistants in a row."""
    sent = await line.relays(R2)

    said = [{"role": each["role"], "content": each["content"]} for each in R2["messages"]]
    assert sent == {"model": "m1", "stream": True, "messages": said}
    [turn] = line.turns
    assert (turn.number, turn.session, turn.channel, turn.user) == (4, None, None, "1002")
    assert turn.text == "A story instead"
    assert {name: turn.engine[name] for name in ("turn_id", "timestamp", "interruptable")} == {
        "turn_id": 4,
        "timestamp": 1767000035000,
        "interruptable": True,
    }
    marks = [{k: v for k, v in each.items() if k not in ("role", "content")} for each in R2["messages"]]
    assert turn.engine["messages"] == marks  # side by side with turn.messages
    assert marks[3]["metadata"]["original"].startswith("Why did the chicken")


async def test_who_is_on_the_line_is_told_to_the_hook_and_not_to_the_model(line: Line) -> None:
    """R3: identity by params, presence, a voiceprint."""
    sent = await line.relays({**R3, "session_id": "s-9"})

    said = {"role": "user", "content": "What does this mean?"}
    assert sent == {"model": "m1", "stream": True, "messages": [said]}
    [turn] = line.turns
    assert (turn.session, turn.user, turn.channel, turn.number) == ("s-9", "1002", "room-7", 5)
    assert turn.engine["context"] == {"presence": {"1002": {"selection": "Pythagorean theorem"}}}
    assert (turn.engine["app_id"], turn.engine["agent_uid"]) == ("A1", "1001")
    assert turn.engine["messages"][0]["metadata"]["vpids"] == ["speaker1"]


async def test_images_of_either_shape_leave_as_openai_has_them(line: Line) -> None:
    """R4: OpenAI's shape, the shape of Agora's own sample, `data:` URLs, and a message that is an image only."""
    sent = await line.relays(R4)

    assert sent == {**R4, "messages": R4_LEAVES}
    assert line.turns[0].text == "What is this?"


async def test_a_directive_to_speak_is_no_mistake(line: Line) -> None:
    """R5: audio only, no model named, the assistant's message last. No model is asked: see `test_aloud_whose.py`."""
    heard = await Caller(line.server.url).hears(R5)
    assert (heard.status, line.turns[0].text, line.turns[0].timeline.asked) in ((200, "", None), (501, "", None))


@pytest.mark.parametrize("content", ["", " ", None, []])
async def test_a_caller_who_said_nothing_is_no_mistake(line: Line, content: Any) -> None:
    """R6: the recogniser heard nothing."""
    body = {**R6, "messages": [SYSTEM, {"role": "user", "content": content}]}

    assert await line.relays(body) == body
    assert line.turns[0].text.strip() == ""


async def test_the_second_leg_of_a_tool_call_leaves_as_it_came(line: Line) -> None:
    """R7: the engine ran the tool itself and comes back with `content: null`, `tool_calls` and the result."""
    assert await line.relays(R7) == R7
    assert line.turns[0].text == "Weather in Paris?"


# --- the rest of the contract --------------------------------------------------------------------------


async def test_nested_params_are_lifted_to_the_root(line: Line) -> None:
    """Some engine versions do not flatten `llm.params`; identity keys within are the engine's here as well."""
    params = {"model": "lost", "temperature": 0.2, "channel": "room-1", "x_custom": [None], "user_uid": 7}
    sent = await line.relays({**R1, "params": params, "timestamp": 1})

    assert sent == {**R1, "x_custom": [None]}  # model and temperature stood at the root already, so these count
    assert (line.turns[0].channel, line.turns[0].user) == ("room-1", "7")


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/v1/chat/completions",
        "/chat/completions/chat/completions",
        "/v1/chat/completions/chat/completions",
        "/chat/completions/v1/chat/completions",
        "/v1/chat/completions/v1/chat/completions",
        "/chat/completions/",
        "/v1/chat/completions/",
        "//chat/completions",
        "/v1//chat/completions",
        "/chat/completions?session=s1&empty=",
    ],
)
async def test_every_path_that_people_paste_is_answered(line: Line, path: str) -> None:
    """Base URLs and full URLs are mixed up in every dashboard; identity may stand in the query."""
    heard, record = await line.asks(R1, path=path)

    assert (heard.text, record.path) == ("Tell me a joke", "/v1/chat/completions")
    assert line.turns[0].path == path.partition("?")[0]
    assert line.turns[0].query == ({"session": "s1", "empty": ""} if "?" in path else {})


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "answer",
                    "strict": True,
                    "schema": {
                        "type": "object",
                        "properties": {"a": {"$ref": "#/$defs/A"}, "n": {"type": ["number", "null"], "minimum": 0.5}},
                        "$defs": {"A": {"type": "object", "properties": {"b": {"enum": [None, 1, "x"]}}}},
                        "additionalProperties": False,
                    },
                },
            }
        },
        {"tools": [WEATHER, {"type": "function", "function": {"name": "bare"}}, {"type": "custom", "x": None}]},
        {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        {"tools": []},
        {"tools": None, "tool_choice": None, "stream_options": None, "temperature": None, "stop": None},
        {"stream_options": {"include_usage": True, "x": 1}, "seed": 2**63, "logit_bias": {"50256": -100}},
        {"metadata": {"topic": "demo"}, "context": {"mine": 1}, "store": False, "params": None},
        {"huge": 10**30, "small": 1e-7, "float": 1.0, "int": 1, "unicode": "你好 👋 \u2028 \u0000 \\u0041", "": ""},
    ],
    ids=lambda fields: "+".join(fields),
)
async def test_what_is_the_providers_to_judge_leaves_as_it_came(line: Line, fields: Json) -> None:
    """Sampling, tools, formats and fields that nobody knows, explicit nulls and odd numbers included."""
    sent = await line.relays({**R1, **fields})

    assert json.dumps(sent) == json.dumps({**R1, **fields})  # 1 is not 1.0, and not true


async def test_every_role_and_kind_of_content_leaves_as_it_came(line: Line) -> None:
    """Developer, tool and function; strings, parts and null; names, reasoning and signatures that must come back."""
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "x"}}]},
        {"role": "user", "content": [{"type": "text", "text": "Hi", "image_url": None}], "name": "Ann"},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}, "refusal": None},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "reasoning_content": "hm", "tool_calls": [{"id": "c", "extra_content": {"sig": "=="}}]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "2"}]},
        {"role": "narrator", "content": "Somebody new."},
    ]

    assert (await line.relays({**R1, "messages": messages}))["messages"] == messages


async def test_the_callers_key_goes_on_and_no_other_header_does(line: Line) -> None:
    """Cookies, tracing and the engine's own headers are between the engine and us; a hook may read them."""
    headers = {"authorization": "Bearer sk-caller", "x-session": "s1", "cookie": "a=b", "user-agent": "engine"}
    _, record = await line.asks(R1, **headers)

    assert record.header("authorization") == "Bearer sk-caller"
    assert (record.header("x-session"), record.header("cookie")) == (None, None)
    assert (record.header("user-agent"), line.turns[0].headers["x-session"]) == ("firstword", "s1")


async def test_a_reply_in_one_piece_is_asked_for_as_a_stream_with_usage(line: Line) -> None:
    """`stream: false`, and `stream` left out: only we know that the caller wants it whole."""
    options = {"stream_options": {"include_usage": True}}
    absent = {name: value for name, value in R1.items() if name != "stream"}

    assert await line.relays({**R1, "stream": False}) == {**R1, **options}
    assert await line.relays(absent) == {**R1, **options}
    assert await line.relays({**R1, "stream": None, "stream_options": {"x": 1}}) == {
        **R1,
        "stream_options": {"x": 1, "include_usage": True},
    }


async def test_the_plain_platform_takes_nothing_out(upstream: Upstream) -> None:
    """`platform="openai"`: a client that is no engine may have a `metadata` or a `channel` of its own."""
    plain = Line(upstream, platform="openai")
    try:
        assert await plain.relays(R2) == R2
        assert await plain.relays({**R4, "channel": "c"}) == {**R4, "messages": R4_LEAVES, "channel": "c"}
    finally:
        plain.server.stop()


# --- properties: what nobody has thought of yet -----------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KNOWN = {
    *(*agora.ENGINE_FIELDS, *agora.IDENTITY_FIELDS, *agora.MESSAGE_FIELDS, "params", "context", "user"),
    *("model", "stream", "stream_options", "tools", "messages", "role", "content", "type", "image_url", "function"),
    *("id", "choices", "usage", "error", "index", "delta", "finish_reason", "refusal", "tool_calls", "function_call"),
    *("audio", "object", "created"),
}
FIELDS = st.dictionaries(st.text(max_size=12).filter(lambda name: name not in KNOWN), VALUES, max_size=3)


@given(root=FIELDS, message=FIELDS, part=FIELDS, tool=FIELDS)
@example(root={'a":': {'b" :': 1}}, message={"": None}, part={"url": 1e300}, tool={"x": -0.0})
@settings(max_examples=60, deadline=None)
def test_unknown_fields_survive_to_the_model_unchanged(root: Json, message: Json, part: Json, tool: Json) -> None:
    """Whatever stands at the root, in a message, in a part or in a tool, in whatever order."""
    said = {"role": "user", "content": [{**part, "type": "text"}, {"type": "image_url", "image_url": {"url": "u"}}]}
    body = {**root, "model": "m1", "stream": True, "messages": [{**message, **said}], "tools": [{**tool, "type": "f"}]}
    sent = json.dumps(body)

    turn = agora.platform.read(Asked(read_json(sent.encode()), {}, {}, "/chat/completions", None))
    request = openai.provider.request(turn, model=turn.model, base_url="http://localhost/v1", key=None)

    assert json.dumps(json.loads(request.body)) == sent


@given(frames=st.lists(st.tuples(FIELDS, FIELDS, FIELDS, st.sampled_from([(",", ":"), (", ", " : ")])), max_size=4))
@settings(max_examples=60, deadline=None)
def test_unknown_fields_of_a_chunk_survive_to_the_caller_byte_for_byte(frames: list[Any]) -> None:
    """Whatever a provider adds to a chunk, to a choice or to a delta, and however it writes its JSON."""
    came = []
    for root, choice, delta, separators in frames:
        choices = [{**choice, "index": 0, "delta": {**delta, "content": "a"}, "finish_reason": None}]
        chunk = {**root, **script.chunk({}, choices=choices)}
        came.append(b"data: " + json.dumps(chunk, separators=separators).encode() + b"\n\n")
    decoder = openai.Decoder(turn_id="t", model="m", wants_usage=False, secret=None)

    assert [chunk.frame for chunk in decoder.feed(b"".join(came))] == came
    assert (decoder.failure, decoder.skipped) == (None, 0)
