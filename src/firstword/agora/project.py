"""An Agora project's agents, by Agora's SDK: started, told and asked, each call one request that is never sent twice.

The SDK is the extra `firstword[agora]`. Tokens are made here, by its functions: the certificate never leaves the
machine. Hosts are those that Agora documents, the same that `agents.py` uses.
"""

from __future__ import annotations

import base64
import re
import time
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from ..agents import AREAS
from ..errors import ConfigError
from ..transport import split
from .account import Account
from .refusals import AgoraError, no_answer, refusal

INSTALL = 'pip install "firstword[agora]"'
ANSWER_TIMEOUT = 20.0  # seconds of silence within one request; Agora starts an agent before it answers
ASK_EXPIRY = 3600  # seconds that the token of a request is good for: a clock may be wrong by some of them
JOIN_EXPIRY = 86400  # seconds that an agent may stay in the channel with its token; Agora allows no more
MAX_SAID = 512  # bytes of one text to speak
MAX_CHANNEL = 64  # bytes of a channel's name
MAX_PAGES = 1000  # of turns; a server that never says which is the last one is left
PAGE = 50  # turns of a page, the most that Agora gives
RUNNING, FAILED = "RUNNING", ("FAILED", "STOPPING", "STOPPED")

Json = dict[str, Any]


class Project:
    """The agents of an Agora project, as one who is allowed to in `channel`. Close it, or use it in a `with`.

    uid: the agent's in the channel, for which tokens are made. within: seconds that an answer may be silent.
    Raises ConfigError when the SDK is not there, or what tokens are made of cannot be right.
    """

    def __init__(self, account: Account, *, channel: str, uid: int, within: float = ANSWER_TIMEOUT) -> None:
        _check_sdk()
        import httpx
        from agora_agent.client import Agora

        if len(channel.encode("utf-8", "replace")) > MAX_CHANNEL:
            raise ConfigError(f"A channel's name has at most {MAX_CHANNEL} bytes.", hint="give another --channel")
        self._account = account
        self._channel = channel
        self._within = within
        host, prefix = AREAS[account.area]
        root = (account.base_url or host).rstrip("/")
        split(root)
        self._last: Any = None  # the response to the last request: the SDK's own models hide what they do not expect
        try:
            self._http = httpx.Client(timeout=within, event_hooks={"response": [self._keep]})
        except (ValueError, ImportError, httpx.InvalidURL):
            raise ConfigError("The proxy that HTTPS_PROXY names cannot be used.", hint="mend it, or unset it") from None
        try:
            sdk = Agora(
                base_url=f"{root}{prefix}/api/conversational-ai-agent",
                authorization=self._authorization(uid),
                username="",
                password="",
                httpx_client=self._http,
            )
        except BaseException:
            self._http.close()
            raise
        self._agents = sdk.agents

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    # --- calls ---------------------------------------------------------------------------------------

    def start(self, name: str, properties: Mapping[str, Any], *, pipeline_id: str | None = None) -> Json:
        """Start an agent and return what Agora says of it: `agent_id`, `status`, `create_ts`. Raises AgoraError."""
        more = {"pipeline_id": pipeline_id} if pipeline_id else {}
        sent: Any = dict(properties)
        answer = self._ask(lambda: self._agents.start(self._account.app_id, name=name, properties=sent, **more))
        if not isinstance(answer.get("agent_id"), str) or not answer["agent_id"]:
            raise no_answer(200)
        return answer

    def stop(self, id: str) -> None:
        """Have an agent leave. Raises AgoraError, `refused` 404 when it does not run any more."""
        self._ask(lambda: self._agents.stop(self._account.app_id, known(id)))

    def say(self, id: str, text: str, *, priority: str = "INTERRUPT", interruptable: bool = True) -> None:
        """Have an agent say a text of at most 512 bytes. Raises ConfigError for a longer or an empty one."""
        size = len(text.encode("utf-8", "replace"))
        if not text.strip():
            raise ConfigError("There is nothing to say.", hint='firstword agent say "One moment, please."')
        if size > MAX_SAID:
            raise ConfigError(
                f"The text has {size} bytes, and Agora speaks at most {MAX_SAID}.",
                hint="say it in parts; a sign that is not ASCII counts 2 to 4 bytes",
            )
        more = {"priority": priority, "interruptable": interruptable}
        self._ask(lambda: self._agents.speak(self._account.app_id, known(id), text=text, **more))

    def interrupt(self, id: str) -> None:
        """Have an agent be silent, if it speaks or thinks. Raises AgoraError."""
        self._ask(lambda: self._agents.interrupt(self._account.app_id, known(id)))

    def update(self, id: str, properties: Mapping[str, Any]) -> None:
        """Change an agent that runs. `llm.params` is replaced whole. Raises AgoraError."""
        sent: Any = dict(properties)
        self._ask(lambda: self._agents.update(self._account.app_id, known(id), properties=sent))

    def status(self, id: str) -> Json:
        """Return what Agora says of an agent: `status`, `start_ts`, `stop_ts`, `message`. Raises AgoraError."""
        answer = self._ask(lambda: self._agents.get(self._account.app_id, known(id)))
        if not isinstance(answer.get("status"), str):
            raise no_answer(200)
        return answer

    def running(self, channel: str) -> list[str]:
        """Return the ids of the agents that run in a channel. Raises AgoraError."""
        answer = self._ask(lambda: self._agents.list(self._account.app_id, channel=channel, state="2"))
        data = answer.get("data")
        listed = data.get("list") if isinstance(data, dict) else None
        if not isinstance(listed, list):
            raise no_answer(200)
        return [each["agent_id"] for each in listed if isinstance(each, dict) and isinstance(each.get("agent_id"), str)]

    def history(self, id: str) -> list[Json]:
        """Return what was said so far, `{role, content}` each; only of an agent that runs. Raises AgoraError."""
        return _objects(self._ask(lambda: self._agents.get_history(self._account.app_id, known(id))), "contents")

    def turns(self, id: str) -> list[Json]:
        """Return all turns of an agent with their times, page by page; those of the last 7 days. Raises AgoraError."""
        turns: list[Json] = []
        for page in range(1, MAX_PAGES + 1):
            answer = self._ask(lambda page=page: self._turns(id, page))  # type: ignore[misc]
            found = _objects(answer, "turns")
            turns += found
            paging = answer.get("pagination")
            if not found or not isinstance(paging, dict) or paging.get("is_last_page") is not False:
                break
        return turns

    def wait(self, id: str, *, within: float, pause: float = 0.5) -> str:
        """Ask for the status until an agent runs, and return it. Raises AgoraError when it fails, or is too slow."""
        deadline = time.monotonic() + within
        while True:
            found = self.status(id)
            status = str(found["status"])
            if status == RUNNING:
                return status
            if status in FAILED:
                why = found.get("message")
                told = f": {why}" if isinstance(why, str) and why else ""
                raise AgoraError(
                    f"The agent is {status} instead of running{told}.", hint="check its ASR, LLM and TTS settings"
                )
            if time.monotonic() >= deadline:
                raise AgoraError(
                    f"The agent is still {status} after {within:g} seconds.", hint="firstword agent status, later"
                )
            time.sleep(pause)

    def token(self, channel: str, uid: int, *, expiry: int = JOIN_EXPIRY) -> str:
        """Return a token to join a channel with, good for `expiry` seconds. Raises ConfigError."""
        from agora_agent.agentkit.token import generate_convo_ai_token

        if self._account.certificate is None:
            raise ConfigError(
                "AGORA_APP_CERT is not set, of which tokens are made.",
                hint="it is the project's primary certificate in Agora's console",
            )
        try:
            token = generate_convo_ai_token(
                self._account.app_id, self._account.certificate, channel, uid, token_expire=expiry
            )
        except ValueError:
            raise ConfigError(
                "AGORA_APP_ID and AGORA_APP_CERT are not both 32 signs long.",
                hint="copy them again from Agora's console; the certificate is not the customer secret",
            ) from None
        if not token.startswith("007"):
            raise ConfigError(
                "The token that was made is of the old kind, because agora-token-builder is installed.",
                hint="pip uninstall agora-token-builder",
            )
        return token

    # --- the wire ------------------------------------------------------------------------------------

    def _authorization(self, uid: int) -> str:
        account = self._account
        if account.is_basic:
            return "Basic " + base64.b64encode(f"{account.key}:{account.secret}".encode()).decode()
        return f"agora token={self.token(self._channel, uid, expiry=ASK_EXPIRY)}"

    def _turns(self, id: str, page: int) -> Any:
        return self._agents.get_turns(self._account.app_id, known(id), page_index=page, page_size=PAGE)

    def _keep(self, answer: Any) -> None:
        self._last = answer

    def _ask(self, call: Callable[[], Any]) -> Json:
        """Return the JSON object that a call was answered with, empty for an empty answer. Raises AgoraError."""
        import httpx
        from agora_agent.core.api_error import ApiError

        self._last = None
        try:
            call()
        except ApiError as error:
            status = error.status_code or 0
            if not 200 <= status < 300:
                raise refusal(
                    status, error.body, is_basic=self._account.is_basic, secrets=self._account.secrets
                ) from None
        except httpx.TimeoutException:
            raise AgoraError(
                f"Agora's API did not answer within {self._within:g} seconds.",
                hint="look at the network; what was asked for may have been done: firstword agent status",
            ) from None
        except httpx.HTTPError as error:
            raise AgoraError(
                f"Agora's API could not be reached ({type(error).__name__}).",
                hint="look at the network, AGORA_AREA and a proxy on the way",
            ) from None
        except Exception as error:
            if self._last is not None:
                pass  # the SDK's models, of an answer that is nothing like what they describe
            elif isinstance(error, ValueError):
                raise ConfigError(
                    "What is to be sent cannot be encoded.", hint="look for NaN, or half a character"
                ) from None
            else:
                raise
        return self._answer()

    def _answer(self) -> Json:
        body = self._last.content
        if not body:
            return {}
        try:
            found = self._last.json()
        except ValueError:
            raise no_answer(self._last.status_code) from None
        if not isinstance(found, dict):
            raise no_answer(self._last.status_code)
        return found


def _check_sdk() -> None:
    """Import the SDK, silently: each of its models has pydantic warn of a setting that it has for pydantic 1."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import agora_agent.agents.client
            import agora_agent.client  # noqa: F401
    except ImportError:
        raise ConfigError("Agora's SDK is not installed.", hint=INSTALL) from None


def known(id: str) -> str:
    """Return an agent's id, which becomes a part of a path. Raises ConfigError for what cannot be one."""
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", id) or set(id) == {"."}:
        raise ConfigError("That is no agent's id.", hint="it is what `firstword agent start` has printed")
    return id


def _objects(answer: Json, name: str) -> list[Json]:
    found = answer.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise no_answer(200)
    return found
