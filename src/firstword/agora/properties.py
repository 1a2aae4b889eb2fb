"""What an agent is started with: the request's properties, made of options and a file, and what is doubtful in them.

Pure. Source: Agora, "Start a conversational AI agent". With a pipeline, what stands here goes over what AI Studio has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..addresses import may_reach
from ..errors import ConfigError

CHAT = "/chat/completions"
IDLE_TIMEOUT = 120  # seconds after the last person has left the channel, unless the file says otherwise
SECRET_MARKS = ("key", "secret", "token", "password", "credential", "authorization")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks of an agent to start. `users` are the uids that it listens to; "*" is everybody.

    url: the address of the custom LLM server. properties: what a file says; options go over it.
    """

    channel: str
    uid: int
    users: Sequence[str]
    app_id: str
    token: str | None = None
    pipeline_id: str | None = None
    url: str | None = None
    key: str | None = None
    model: str | None = None
    greeting: str | None = None
    properties: Mapping[str, Any] | None = None


def joining(wish: Wish) -> Json:
    """Return the properties of the request. Raises ConfigError when they do not make an agent."""
    properties: Json = {"idle_timeout": IDLE_TIMEOUT, **(wish.properties or {})}
    properties["channel"] = wish.channel
    properties["agent_rtc_uid"] = str(wish.uid)
    properties["remote_rtc_uids"] = list(wish.users)
    if wish.token is not None:
        properties["token"] = wish.token
    llm = _language_model(wish, properties.get("llm"))
    if llm:
        properties["llm"] = llm
    if wish.pipeline_id is None and not (properties.get("mllm") or (properties.get("llm") and properties.get("tts"))):
        raise ConfigError(
            "Nothing says how the agent listens, thinks and speaks.",
            hint="give --pipeline (or AGORA_PIPELINE_ID), or --properties with a file that has `llm` and `tts`",
        )
    return properties


def parameters(*, model: str | None, channel: str, uid: int, app_id: str) -> Json:
    """Return `llm.params`, which the engine sends with every turn: the model, and who is on the line."""
    named = {"model": model} if model else {}
    return {**named, "channel": channel, "app_id": app_id, "agent_uid": str(uid)}


def _language_model(wish: Wish, in_file: Any) -> Json:
    llm: Json = dict(in_file) if isinstance(in_file, Mapping) else {}
    if wish.url is not None:
        llm["url"] = full_url(wish.url)
        llm["vendor"] = "custom"  # so that turns have their numbers, by which they are found again in webhooks
        llm.setdefault("style", "openai")
        own = parameters(model=wish.model, channel=wish.channel, uid=wish.uid, app_id=wish.app_id)
        llm["params"] = {**_object(llm.get("params")), **own}
    elif wish.model is not None:
        llm["params"] = {**_object(llm.get("params")), "model": wish.model}
    if wish.key is not None:
        llm["api_key"] = wish.key
    if wish.greeting is not None:
        llm["greeting_message"] = wish.greeting
    return llm


def full_url(url: str) -> str:
    """Return the URL that the engine posts to: exactly this one, so the path must be in it. Raises ConfigError."""
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise ConfigError("The server's URL is no URL.", hint=f"write it as in https://voice.example.com{CHAT}")
    path = parts.path if parts.path.strip("/") else CHAT
    return urlunsplit(parts._replace(path=path, fragment=""))


def doubts(url: str | None) -> list[str]:
    """Return why an agent that is told this URL may start and never speak, a sentence each."""
    if url is None:
        return []
    parts = urlsplit(url)
    found = []
    if not _is_public(parts.hostname or ""):
        found.append(
            "The engine runs in the cloud and cannot reach that URL: the agent starts but never speaks. "
            "Give a public one, as of a tunnel or of Codespaces."
        )
    if parts.scheme != "https":
        found.append("The URL is not https: the key and what people say go over the network in the clear.")
    if not parts.path.rstrip("/").endswith(CHAT):
        found.append(f"The URL does not end in {CHAT}, and the engine appends nothing.")
    return found


def shown(value: Any, name: str = "") -> Any:
    """Return what is sent without what is secret in it: for a person to look at."""
    if isinstance(value, Mapping):
        return {each: shown(inner, str(each).lower()) for each, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(each, name) for each in value]
    is_secret = isinstance(value, str) and any(mark in name for mark in SECRET_MARKS)
    return "***" if is_secret and value else value


def _is_public(host: str) -> bool:
    """False for an address of this machine or a private network; a name is believed, unless it is a local one."""
    if host.replace(".", "").isdecimal() or ":" in host:
        return may_reach(host)
    name = host.rstrip(".").lower()
    return "." in name and not name.endswith((".local", ".localhost", ".internal", ".lan", ".home.arpa"))


def _object(value: Any) -> Json:
    return dict(value) if isinstance(value, Mapping) else {}
