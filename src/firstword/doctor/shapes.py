"""The requests that voice engines send, each a shape that some server refuses; and the checks that send them.

Sources: Agora's documentation of custom LLMs, and what ElevenLabs, Vapi, LiveKit and Pipecat send.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .answers import judge_turn
from .findings import Check, Fault, Finding, Level, Run, ok
from .patient import Patient

Message = dict[str, Any]
Body = dict[str, Any]

SYSTEM: Message = {"role": "system", "content": "You are on the phone. Answer in one short spoken sentence."}
QUESTION = "What is the weather in Paris?"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city's name"}},
            "required": ["city"],
        },
    },
}
BARE: dict[str, Any] = {"type": "function", "function": {"name": "hang_up"}}
BOOK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "book_table",
        "description": "Book a table in a restaurant.",
        "parameters": {
            "type": "object",
            "$defs": {"guest": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
            "properties": {
                "guests": {"type": "array", "items": {"$ref": "#/$defs/guest"}, "minItems": 1, "maxItems": 8},
                "when": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
                "area": {"type": "string", "enum": ["inside", "outside"], "default": "inside"},
            },
            "required": ["guests"],
            "additionalProperties": False,
        },
    },
}
CALL: dict[str, Any] = {
    "id": "call_check1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
}


def said(words: Any, role: str = "user", **more: Any) -> Message:
    """Return one message."""
    return {"role": role, "content": words, **more}


def picture() -> str:
    """Return a small red square as a `data:` URL."""
    row = b"\0" + b"\xd0\x20\x20" * 32
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * 32)),
        (b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _agora(patient: Patient) -> Body:
    spoken: Message = {"turn_id": 2, "timestamp": 1767000010000, "metadata": {"source": "asr", "user": "1002"}}
    cut = {"interrupted": True, "interrupt_timestamp": 1767000012500, "original": "Why did the chicken cross the road?"}
    return patient.body(
        SYSTEM,
        said("Hi!", "assistant", turn_id=1, timestamp=1767000001000, metadata={"source": "greeting"}),
        said("Tell me a joke", **spoken),
        said("Why did the ", "assistant", turn_id=2, timestamp=1767000011000, metadata={"source": "llm", **cut}),
        said("Are you still there?", "assistant", turn_id=3, timestamp=1767000030000, metadata={"source": "silence"}),
        said("Another one, please", turn_id=4, timestamp=1767000035000, metadata={"source": "asr", "user": "1002"}),
        turn_id=4,
        timestamp=1767000035000,
        interruptable=True,
    )


def _identity(patient: Patient) -> Body:
    spoken: Message = {
        "turn_id": 5,
        "timestamp": 1767000100,
        "metadata": {"source": "asr", "user": "1002", "vpids": ["s1"]},
    }
    return patient.body(
        said("What does this mean?", **spoken),
        app_id="A1",
        channel="room-7",
        user_uid="1002",
        agent_uid="1001",
        session_id="check-1",
        context={"presence": {"1002": {"selection": "Pythagorean theorem"}}},
        turn_id=5,
        timestamp=1767000100,
    )


def _parameters(patient: Patient) -> Body:
    return patient.body(
        SYSTEM,
        said("Tell me a joke"),
        temperature=0.7,
        top_p=0.9,
        max_tokens=150,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        n=1,
        user="check",
    )


def _image(patient: Patient, part: dict[str, Any], words: str = "What do you see?") -> Body:
    return patient.body(said([{"type": "text", "text": words}, part] if words else [part]))


def _image_part() -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": picture()}}


def _formatted(patient: Patient, kind: str) -> Body:
    schema = {
        "name": "answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "sunny": {"type": "boolean"}},
            "required": ["city", "sunny"],
            "additionalProperties": False,
        },
    }
    wanted = {"type": kind, "json_schema": schema} if kind == "json_schema" else {"type": kind}
    return patient.body(
        said(f"{QUESTION} Say it is sunny. Answer in JSON with the keys city and sunny."), response_format=wanted
    )


@dataclass(frozen=True)
class Shape:
    """One kind of request: who sends it, and how bad it is when it is refused."""

    name: str
    says: str
    why: str
    mend: str
    make: Callable[[Patient], Body]
    level: Level = Level.WARNING
    is_quick: bool = False

    @property
    def refused(self) -> Fault:
        """The fault of refusing it."""
        return Fault(f"refuses-{self.name}", self.level, f"{self.says} is refused.", self.why, self.mend)


SHAPES = (
    Shape(
        "agora",
        "A turn of Agora's engine, with `turn_id`, `timestamp`, `metadata` and an interrupted reply,",
        "With `vendor: custom`, each turn has these fields: the agent only speaks its failure message.",
        "Ignore fields that you do not know, and keep them from a strict provider.",
        _agora,
        Level.ERROR,
        is_quick=True,
    ),
    Shape(
        "session-fields",
        "A turn with `channel`, `app_id`, `session_id` and `context`",
        "That is how an engine tells whose call this is; all of `llm.params` stands in the body.",
        "Ignore fields that you do not know, and keep them from a strict provider.",
        _identity,
        Level.ERROR,
    ),
    Shape(
        "nested-params",
        "A turn with a nested `params` object",
        "Some versions of the engine send `llm.params` nested instead of flat.",
        "Accept it, and read what stands in it.",
        lambda patient: patient.body(SYSTEM, said("Tell me a joke"), params={"temperature": 0.7}),
    ),
    Shape(
        "parameters",
        "A turn with `temperature`, `top_p`, `max_tokens`, penalties, `n` and `user`",
        "Whatever stands in `llm.params` comes in each body.",
        "Accept the API's parameters, and pass on those that the model takes.",
        _parameters,
    ),
    Shape(
        "usage",
        "A turn with `stream_options.include_usage`",
        "LiveKit and Pipecat send it with each turn.",
        "Accept stream_options, and pass it on.",
        lambda patient: patient.body(said("Tell me a joke"), stream_options={"include_usage": True}),
    ),
    Shape(
        "blank",
        "A turn whose last words are blank",
        "Speech recognition sometimes hears nothing. The call must not end for that.",
        "Answer it as any other turn, or with a short word.",
        lambda patient: patient.body(SYSTEM, said("Hi!", "assistant"), said("")),
        Level.ERROR,
        is_quick=True,
    ),
    Shape(
        "null-content",
        "A user's message with `content: null`",
        "Engines send it for a turn without text.",
        "Take null for an empty text.",
        lambda patient: patient.body(SYSTEM, said("Hello"), said("Hi!", "assistant"), said(None)),
    ),
    Shape(
        "last-assistant",
        "A conversation that ends with the assistant's message",
        "A greeting that is to be spoken comes so.",
        "Answer it; if the provider refuses it, say the text itself.",
        lambda patient: patient.body(SYSTEM, said("Welcome!", "assistant")),
    ),
    Shape(
        "two-assistants",
        "A conversation with two assistant messages in a row",
        "A greeting and then a reminder make that of each silent caller's call.",
        "Ask for no alternation. If the provider wants one, join the messages.",
        lambda patient: patient.body(
            SYSTEM, said("Hi!", "assistant"), said("Are you there?", "assistant"), said("Yes, I am.")
        ),
        Level.ERROR,
    ),
    Shape(
        "no-user",
        "A conversation without a user's message",
        "A prompt against silence may come before the caller has said a word.",
        "Answer it; if the provider wants a user's message, add one.",
        lambda patient: patient.body(said("Greet the caller in one sentence.", "system")),
    ),
    Shape(
        "developer",
        "A message of the role `developer`",
        "Pipecat and newer SDKs send instructions so.",
        "Accept it, and make it `system` for a provider that does not know it.",
        lambda patient: patient.body(said("Answer briefly.", "developer"), said("Tell me a joke")),
    ),
    Shape(
        "parts",
        "Text as a list of parts",
        "Engines that also send images send each text so.",
        'Accept `[{"type":"text","text":...}]` as well as a string.',
        lambda patient: patient.body(said([{"type": "text", "text": "Tell me a joke"}])),
    ),
    Shape(
        "image",
        "An image, as OpenAI's part with a `data:` URL,",
        "An engine with `input_modalities` of text and image sends what the camera sees.",
        "Accept image_url parts. If the model itself is blind, name one that sees, or turn images off in the engine.",
        lambda patient: _image(patient, _image_part()),
    ),
    Shape(
        "image-agora",
        'An image as `{"type":"image","image_url":"..."}`',
        "Agora's own sample sends images in this shape, which is not OpenAI's.",
        "Bring it into OpenAI's shape before the model is asked.",
        lambda patient: _image(patient, {"type": "image", "image_url": picture()}),
    ),
    Shape(
        "image-only",
        "A message that is one image and no text",
        "Engines send the image and the words in messages of their own.",
        "Ask for no text part.",
        lambda patient: _image(patient, _image_part(), words=""),
    ),
    Shape(
        "tool-result",
        "The second leg of a tool call, an assistant's message with `content: null` and a `tool` message,",
        "After the engine has run its tool, it sends this. The caller waits for the answer and hears none.",
        "Accept null content beside tool_calls, and the role `tool`, and pass both on.",
        lambda patient: patient.body(
            said(QUESTION),
            said(None, "assistant", tool_calls=[CALL]),
            said('{"weather":"sunny"}', "tool", tool_call_id=CALL["id"]),
            tools=[WEATHER],
        ),
        Level.ERROR,
    ),
    Shape(
        "unanswered-call",
        "A conversation with a tool call that has no result",
        "When the caller interrupts a tool, its call stays in the history: from then on each turn is refused.",
        "Add a result that says that it was interrupted, or take the call out.",
        lambda patient: patient.body(
            said(QUESTION), said(None, "assistant", tool_calls=[CALL]), said("Never mind. Tell me a joke.")
        ),
    ),
    Shape(
        "bare-tool",
        "A tool without a description and without parameters",
        "Both are optional, and an engine's own tools have none.",
        "Ask only for the tool's name.",
        lambda patient: patient.body(said("Tell me a joke"), tools=[BARE]),
    ),
    Shape(
        "tool-schema",
        "A tool with a real JSON schema: `$defs`, `anyOf`, `enum`, lists,",
        "Tools of an MCP server have such schemas.",
        "Take `parameters` as any JSON object, not as a type of your own.",
        lambda patient: patient.body(said("Tell me a joke"), tools=[BOOK]),
    ),
    Shape(
        "json-object",
        '`response_format: {"type":"json_object"}`',
        "Engines and apps ask so for structured answers.",
        "Accept it, and pass it on.",
        lambda patient: _formatted(patient, "json_object"),
    ),
    Shape(
        "json-schema",
        "`response_format` with a JSON schema",
        "Engines and apps ask so for structured answers.",
        "Accept it, and pass it on.",
        lambda patient: _formatted(patient, "json_schema"),
    ),
    Shape(
        "no-model",
        "A turn that names no model",
        "D-ID sends none, and `llm.params` may lack it.",
        "Take a model of your own when the request names none.",
        lambda patient: patient.body(said("Tell me a joke"), model=None),
        Level.ADVICE,
    ),
)


def _sends(shape: Shape) -> Run:
    async def run(patient: Patient) -> list[Finding]:
        body = shape.make(patient)
        heard = await patient.ask(body)
        found = judge_turn(heard, body, shape.refused, secrets=patient.secrets)
        return found or [ok(f"status {heard.status}, {len(heard.stream.text.split())} words")]

    return run


CHECKS = tuple(
    Check(shape.name, f"{shape.says.rstrip(',')}", _sends(shape), (shape.refused,), is_quick=shape.is_quick)
    for shape in SHAPES
)
