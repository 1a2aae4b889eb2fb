"""Agora's REST API on loopback, as its documents describe it: strict about paths, and about who asks.

A token is decoded and its signature checked, as Agora's own library ("AccessToken2") writes it. Whatever is asked is
kept, every byte that arrived, so that a test can look for what must not be there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

APP_ID = "0123456789abcdef0123456789abcdef"
CERTIFICATE = "fedcba9876543210fedcba9876543210"
KEY, SECRET = "customer-key", "customer-secret"
BASIC = "Basic " + base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
BY_BASIC = {"AGORA_APP_ID": APP_ID, "AGORA_BASIC_KEY": KEY, "AGORA_BASIC_SECRET": SECRET}
BY_TOKEN = {"AGORA_APP_ID": APP_ID, "AGORA_APP_CERT": CERTIFICATE}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its whole head and body as they came, and what of it a test asks for most."""

    method: str
    path: str
    raw: bytes
    authorization: str
    body: Any

    @property
    def properties(self) -> Any:
        return self.body["properties"]


@dataclass(frozen=True, slots=True)
class Token:
    """What a token of the 007 kind says. services: privileges with their seconds, and the names, by kind."""

    app_id: str
    expires_in: int
    services: dict[int, tuple[dict[int, int], list[str]]]


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, form: str) -> int:
        value: int = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def text(self) -> bytes:
        size = self.number("<H")
        self.at += size
        return self.data[self.at - size : self.at]


def read_token(token: str, certificate: str = CERTIFICATE) -> Token:
    """Return what a token says. Raises ValueError when it is not of the 007 kind, or not signed by the certificate."""
    if not token.startswith("007"):
        raise ValueError("not 007")
    data = _Bytes(zlib.decompress(base64.b64decode(token[3:], validate=True)))
    signature = data.text()
    signed = data.data[data.at :]
    app_id = data.text().decode()
    issued, expires_in, salt = (data.number("<I") for _ in range(3))
    key = hmac.new(struct.pack("<I", issued), certificate.encode(), hashlib.sha256).digest()
    key = hmac.new(struct.pack("<I", salt), key, hashlib.sha256).digest()
    if not hmac.compare_digest(hmac.new(key, signed, hashlib.sha256).digest(), signature):
        raise ValueError("not signed by the certificate")
    if not -60 <= time.time() - issued <= expires_in:
        raise ValueError("not of now")
    services = {}
    for _ in range(data.number("<H")):
        kind = data.number("<H")
        privileges = {data.number("<H"): data.number("<I") for _ in range(data.number("<H"))}
        services[kind] = (privileges, [data.text().decode() for _ in range(2 if kind == 1 else 1)])
    return Token(app_id, expires_in, services)


class Agora:
    """A running API. `says` decides what a path's end is answered with from now on, in place of what is right.

    prefix: "" for the global area, "/cn" for mainland China. statuses: what an agent says of itself, look by look.
    """

    def __init__(self, prefix: str = "") -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, Any] = {}
        self.statuses = ["RUNNING"]
        self.agents: dict[str, str] = {}  # channels by agent
        self.turns: list[Any] = []
        self.said: list[Any] = []
        self.left = threading.Event()  # lets go of callers who wait for ever
        self.root = f"{prefix}/api/conversational-ai-agent/v2/projects/{APP_ID}"
        api = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api._answer(self)

            def do_POST(self) -> None:
                api._answer(self)

            def log_message(self, *what: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.left.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def says(self, end: str, status: int, body: Any) -> None:
        """Answer paths that end so with this: bytes as they are, None never, else JSON."""
        self.answers[end] = (status, body)

    @property
    def last(self) -> Asked:
        return self.asked[-1]

    # --- answering -----------------------------------------------------------------------------------

    def _answer(self, asked: BaseHTTPRequestHandler) -> None:
        data = asked.rfile.read(int(asked.headers.get("content-length") or 0))
        raw = asked.raw_requestline + bytes(asked.headers) + data
        body = json.loads(data) if data else None
        if "conversational-ai-agent" in asked.path:  # else it is for whoever had this port before
            self.asked.append(
                Asked(asked.command, asked.path, raw, asked.headers.get("authorization", ""), body),
            )
        path = urlsplit(asked.path).path
        status, answer = next((said for end, said in self.answers.items() if path.endswith(end)), None) or self._right(
            asked, path, body
        )
        if answer is None:
            self.left.wait(20)
            asked.close_connection = True
            return
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        asked.send_response(status)
        asked.send_header("content-type", "application/json")
        asked.send_header("content-length", str(len(content)))
        asked.end_headers()
        asked.wfile.write(content)

    def _right(self, asked: BaseHTTPRequestHandler, path: str, body: Any) -> tuple[int, Any]:
        if not self._is_allowed(asked.headers.get("authorization", "")):
            return 401, {"detail": "Invalid authentication credentials", "reason": "Unauthorized"}
        if not path.startswith(f"{self.root}/"):
            return 404, {"message": "no Route matched with those values"}
        rest = path[len(self.root) :]
        if (asked.command, rest) == ("POST", "/join"):
            return self._join(body)
        if (asked.command, rest) == ("GET", "/agents"):
            channel = parse_qs(urlsplit(asked.path).query)["channel"][0]
            found = [{"agent_id": id, "status": "RUNNING"} for id, each in self.agents.items() if each == channel]
            return 200, {"data": {"count": len(found), "list": found}, "meta": {"cursor": ""}, "status": "ok"}
        match = re.fullmatch(r"/agents/([^/]+)(?:/(\w+))?", rest)
        verbs = {"leave": "POST", "update": "POST", "speak": "POST", "interrupt": "POST"}
        if match is None or verbs.get(match[2], "GET") != asked.command:
            return 404, {"message": "no Route matched with those values"}
        return self._about(match[1], match[2], body, parse_qs(urlsplit(asked.path).query))

    def _is_allowed(self, authorization: str) -> bool:
        if authorization == BASIC:
            return True
        kind, _, token = authorization.partition("agora token=")
        try:
            found = read_token(token)
        except (ValueError, zlib.error, struct.error):
            return False
        return not kind and found.app_id == APP_ID

    def _join(self, body: Any) -> tuple[int, Any]:
        for name in ("channel", "agent_rtc_uid", "remote_rtc_uids"):
            if name not in body["properties"]:
                return 400, {"detail": f"properties: {name} not found", "reason": "MissingRequiredField"}
        id = f"agent-{len(self.agents) + 1}"
        self.agents[id] = body["properties"]["channel"]
        return 200, {"agent_id": id, "create_ts": 1767000000, "status": "STARTING"}

    def _about(self, id: str, what: str | None, body: Any, query: dict[str, list[str]]) -> tuple[int, Any]:
        if what == "turns":
            index, size = int(query["page_index"][0]), int(query["page_size"][0])
            page = self.turns[(index - 1) * size : index * size]
            is_last = index * size >= len(self.turns)
            return 200, {"agent_id": id, "turns": page, "pagination": {"page_index": index, "is_last_page": is_last}}
        if id not in self.agents:
            return 404, {"detail": "task not found or already exited", "reason": "TaskNotFound"}
        if what == "leave":
            del self.agents[id]
            return 200, b""
        if what is None:
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            return 200, {"agent_id": id, "status": status, "start_ts": 1767000000, "stop_ts": 0, "message": "as told"}
        if what == "history":
            return 200, {"agent_id": id, "status": "RUNNING", "start_ts": 1767000000, "contents": self.said}
        return 200, {"agent_id": id, "channel": self.agents[id], "start_ts": 1767000000}


@contextmanager
def agora(area: str = "global") -> Iterator[Agora]:
    """Run Agora's API of an area."""
    api = Agora({"global": "", "cn": "/cn"}[area])
    try:
        yield api
    finally:
        api.stop()
