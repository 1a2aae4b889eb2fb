"""The OpenAPI document of the server's routes, and the page that shows it. A test holds both against the routes."""

from __future__ import annotations

import html
import json
from functools import lru_cache
from typing import Any

_ERRORS = {
    "400": "The request is not understood; `param` names the field.",
    "401": "No key was sent, or a wrong one.",
    "403": "This caller may not be served here.",
    "408": "The body did not arrive in time.",
    "413": "The body, or an image in it, is over the limit (20 MiB for the body unless set otherwise).",
    "421": "The `Host` header says no name of this server's.",
    "429": "The provider's or the server's limit is reached; `retry-after` says when to come back.",
    "500": "The server made a mistake; the log has it under the request's id.",
    "502": "The model could not be reached, or what it sent is no answer.",
    "503": "The model's server is overloaded, in its own words; or this server is overloaded, or being stopped.",
    "504": "The model was too slow.",
}

_KEYS = (
    "A key comes as `Authorization: Bearer <key>`, as `api-key` or as `x-api-key`: your provider's, or one that the "
    "operator of this server gave you, or a token of an issuer that it trusts. The model `demo` needs none where the "
    "operator asks for none."
)

# Where an image may be, in the usual form: in the request itself, or at a public name. `links.py` has the whole rule.
LINK = r"^(data:.*|https?://([a-z0-9]+\.)+[a-z]{2,}(:[1-9][0-9]{1,3})?([/?#][!-\[\]-~]*)?)$"

_EXAMPLE = {
    "model": "demo",
    "stream": True,
    "messages": [{"role": "user", "content": "Hello, how are you?"}],
}


def _page_of(summary: str, kind: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {kind: {"schema": schema}}}, **more},
    }


def _error(description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": description, "content": content}


def _chat(summary: str, operation: str, more: dict[str, str] | None = None) -> dict[str, Any]:
    chunk = {"$ref": "#/components/schemas/Chunk"}
    events = {
        # Without a type: some readers take the whole stream for what is described, and some each event.
        "schema": {"description": "Events `data: {chunk}`, the last one `data: [DONE]`."},
        "x-chunk": chunk,
    }
    whole = {"schema": {"$ref": "#/components/schemas/Completion"}}
    request = {"schema": {"$ref": "#/components/schemas/Request"}, "example": _EXAMPLE}
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "security": [{"bearer": []}, {"apiKey": []}, {"xApiKey": []}, {}],
            "requestBody": {"required": True, "content": {"application/json": request}},
            "responses": {
                "200": {
                    "description": "The answer: events while it comes with `stream: true`, else one object.",
                    "content": {"text/event-stream": events, "application/json": whole},
                },
                **{status: _error(text) for status, text in sorted({**_ERRORS, **(more or {})}.items())},
            },
        }
    }


def _schemas() -> dict[str, Any]:
    text = {"type": "string"}
    nullable = {"type": ["string", "null"]}
    link = {"type": "string", "pattern": LINK}
    image = {"anyOf": [link, {"type": "object", "required": ["url"], "properties": {"url": link}}]}
    is_image = {"required": ["type"], "properties": {"type": {"enum": ["image", "image_url"]}}}
    part = {
        "type": "object",
        "description": 'A part: `{"type": "text"}` with `text`, or `{"type": "image_url"}` with `image_url.url`.',
        "properties": {"type": {}, "text": {}, "image_url": {"anyOf": [*image["anyOf"], {"type": "null"}]}},
        "if": is_image,
        "then": {"required": ["image_url"], "properties": {"image_url": image}},
    }
    message = {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {**text, "description": "system, developer, user, assistant, tool, ..."},
            "content": {"anyOf": [text, {"type": "array", "items": part}, {"type": "null"}]},
        },
    }
    choice: dict[str, Any] = {"type": "object", "properties": {"index": {"type": "integer"}, "finish_reason": nullable}}
    reply = {"id": text, "object": text, "created": {"type": "integer"}, "model": text}
    error = {"message": text, "type": text, "param": nullable, "code": {"type": ["string", "integer", "null"]}}

    def with_choices(name: str) -> dict[str, Any]:
        own = {**choice, "properties": {**choice["properties"], name: {"type": "object"}}}
        return {
            "type": "object",
            "required": ["id", "choices"],
            "properties": {**reply, "choices": {"type": "array", "items": own}, "usage": {"type": ["object", "null"]}},
        }

    return {
        "Request": {
            "type": "object",
            "required": ["messages"],
            "description": "OpenAI's chat.completions request. Every other field goes to the model as it is.",
            "properties": {
                "messages": {"type": "array", "minItems": 1, "items": message},
                "model": nullable,
                "stream": {"type": ["boolean", "null"], "default": False},
                "stream_options": {"type": ["object", "null"]},
                "tools": {"type": ["array", "null"], "description": "What each of them is, the model judges."},
            },
        },
        "Chunk": with_choices("delta"),
        "Completion": with_choices("message"),
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "object", "required": ["message", "type"], "properties": error}},
        },
    }


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    models = _page_of("The models that a request may name.", "application/json", {"type": "object"})
    models["responses"].update({status: _error(_ERRORS[status]) for status in ("401", "403", "421", "429")})
    status = {"type": "object", "properties": {"status": {"type": "string"}}}
    metrics = _page_of("What was counted, for Prometheus.", "text/plain", {"type": "string"})
    metrics["responses"]["200"]["content"]["application/openmetrics-text"] = {"schema": {"type": "string"}}
    metrics["responses"].update({status: _error(_ERRORS[status]) for status in ("401", "403", "421", "429")})
    audio = {"501": "This server has no voice."}
    ready = {"description": "No model is within reach.", "content": {"application/json": {"schema": status}}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "firstword",
            "version": "1",
            "description": "The custom LLM server for voice agents: any OpenAI-compatible model behind one URL. A "
            "platform's name may stand before a path (`/vapi/chat/completions`), and so may a session "
            "(`/s/call-7/chat/completions`).",
        },
        "servers": [{"url": "./"}],
        "paths": {
            "/chat/completions": _chat("Answer a turn.", "chat"),
            "/v1/chat/completions": _chat("The same, where clients add /v1.", "chat_v1"),
            "/audio/chat/completions": _chat("The same, as sound: 40 ms of PCM an event.", "audio", audio),
            "/v1/audio/chat/completions": _chat("The same, where clients add /v1.", "audio_v1", audio),
            "/models": {"get": models},
            "/v1/models": {"get": models},
            "/health": {"get": _page_of("The process runs.", "application/json", status)},
            "/ready": {"get": _page_of("The process can serve.", "application/json", status, **{"503": ready})},
            "/metrics": {"get": metrics},
            "/docs": {"get": _page_of("This documentation, as a page.", "text/html", {"type": "string"})},
            "/openapi.json": {"get": _page_of("This documentation, as data.", "application/json", {"type": "object"})},
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
                "xApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; }
h2 { margin: 2.5rem 0 .3rem; font-size: 1.1rem; } h2 b { color: #0a7d4f; }
pre { background: #8881; padding: 1rem; border-radius: .5rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
td { padding: .15rem 1rem .15rem 0; vertical-align: top; } code { font-size: .95em; }
"""


@lru_cache(maxsize=1)
def page() -> str:
    """Return the document as one HTML page: no script, nothing fetched from elsewhere."""
    parts = []
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><b>{method.upper()}</b> <code>{html.escape(path)}</code></h2>")
            parts.append(f"<p>{_marked(operation['summary'])}</p><table>")
            for status, response in operation["responses"].items():
                parts.append(f"<tr><td><code>{status}</code></td><td>{_marked(response['description'])}</td></tr>")
            parts.append("</table>")
    body = html.escape(json.dumps(_EXAMPLE))
    curl = (
        "curl -N http://localhost:8000/chat/completions \\\n"
        "  -H 'Content-Type: application/json' -H 'Authorization: Bearer KEY' \\\n"
        f"  -d '{body}'"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>firstword</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style><h1>firstword</h1><p>{_marked(document()['info']['description'])} "
        f'The whole description, for programs: <a href="openapi.json">openapi.json</a>.</p><pre>{curl}</pre>'
        f"<p>{_marked(_KEYS)}</p><h2>What a request holds</h2>{_fields()}{''.join(parts)}</html>"
    )


def _fields() -> str:
    """Return the request's fields as a table."""
    request = _schemas()["Request"]
    rows = [
        f"<tr><td><code>{name}</code></td><td>{html.escape(_kind(schema))}</td></tr>"
        for name, schema in request["properties"].items()
    ]
    return f"<table>{''.join(rows)}</table><p>{_marked(request['description'])}</p>"


def _kind(schema: dict[str, Any]) -> str:
    kind = schema["type"]
    said = kind if isinstance(kind, str) else " or ".join(kind)
    return said + (", at least one message" if schema.get("minItems") else "")


def _marked(text: str) -> str:
    """Escape text, and show what stands in backquotes as code."""
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))
