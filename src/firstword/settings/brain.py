"""The settings of the brain: who answers, for whom, and what is done against silence. `App` takes each of them too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from ..policy import Policy


class Brain(BaseSettings):
    """Each field is a setting; its description is what the READMEs say of it."""

    base_url: str = Field(
        "https://api.openai.com/v1",
        validation_alias=AliasChoices("LLM_BASE_URL"),
        description="Root of the OpenAI-compatible API behind the server.",
    )
    api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("LLM_API_KEY"),
        description="The server's own key for the provider. Callers then need a gate key.",
    )
    model: str | None = Field(
        None,
        validation_alias=AliasChoices("LLM_MODEL"),
        description="The model for a request that names none.",
    )
    strict: bool = Field(
        False,
        validation_alias=AliasChoices("LLM_STRICT"),
        description="The server behind `LLM_BASE_URL` refuses what it does not know: it gets the plainest form of a "
        "conversation.",
    )
    models: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="What may answer, in order of preference, separated by commas, as in `gpt-5-mini,groq:llama3-70b`.",
    )
    keys: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list, description="Gate keys, separated by commas: who may call a server that holds a key."
    )
    open: bool = Field(False, description="Serve everybody although the server holds a key.")
    platform: str = Field(
        "auto",
        description="Whose requests these are: `auto` sees it from each; else `agora`, `elevenlabs`, `vapi`, `hume`, "
        "`deepgram`, `telnyx`, `tavus`, `did`, `livekit`, `pipecat` or `openai`.",
    )
    session: Annotated[list[str], NoDecode] = Field(
        default_factory=lambda: ["header:x-session-id", "query:session_id", "body:session_id"],
        description="Where a session's name may stand, before the platform's own place: the first that has it "
        "counts. `bearer` is the caller's key itself.",
    )
    note_interruptions: bool = Field(
        False,
        description="Tell the model that its last reply was cut off by the caller, and which words were heard last.",
    )
    keep_images: int = Field(
        0, ge=0, description="For how many turns an image is put back into the history of an engine that forgets it."
    )
    host: str = Field("0.0.0.0", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    max_body: int = Field(20 * 1024 * 1024, gt=0, description="Largest request body, in bytes.")
    body_timeout: float = Field(15.0, gt=0, description="Seconds for the request's body to arrive.")
    connect_timeout: float = Field(5.0, gt=0, description="Seconds to connect to the provider, TLS included.")
    first_token_timeout: float = Field(4.0, gt=0, description="Seconds from asking the model to its first word.")
    reasoning_timeout: float | None = Field(
        None, gt=0, description="The same for a model that sends its reasoning meanwhile; unset: no longer."
    )
    stall_timeout: float = Field(5.0, gt=0, description="Seconds of silence within an answer.")
    turn_timeout: float = Field(60.0, gt=0, description="Seconds for a whole turn.")
    hedge_after: float | Literal["p95", "none"] = Field(
        1.2,
        description="Seconds without speech before the next of `models` is asked as well; `p95`: learnt for each; "
        "`none`: only after a failure.",
    )
    hedge_share: float = Field(
        0.1, ge=0, le=1, description="Share of turns that may cost a second request, to another model or to the same."
    )
    fillers: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="What may be said while nothing else is, separated by vertical bars."
    )
    fill_after: float = Field(1.5, gt=0, description="Seconds without speech before one of them is said.")
    apology: str | None = Field(None, description="What is said instead of an error.")
    on_cut: Literal["apologise", "finish", "error"] | None = Field(
        None,
        description="What follows words that were cut off: `apologise`, `finish` or `error`; as a rule the first if "
        "there is an apology, else the last.",
    )
    shape: Literal["auto", "speech", "think", "none"] = Field(
        "auto",
        description="What is not read out: `speech`: reasoning, markup, emoji and the like; `think`: reasoning; "
        "`none`; `auto`: the first for voice engines, the last for plain clients.",
    )
    tool_rounds: int = Field(
        5, ge=1, le=100, description="How often in a turn a model may call tools before it has to answer."
    )
    tool_timeout: float = Field(10.0, gt=0, description="Seconds for one call of a tool.")
    tool_max_result: int = Field(
        32 * 1024, gt=0, description="Bytes of a tool's result that the model is told; what is over is cut."
    )
    resent: Literal["auto", "supersede", "join", "none"] = Field(
        "auto",
        description="What a turn that is sent again does to the one that is being answered: `supersede` it, `join` it, "
        "or `none`; `auto`: as the platform has it.",
    )
    agora_app_id: str | None = Field(
        None,
        validation_alias=AliasChoices("AGORA_APP_ID"),
        description="The App ID of the Agora project whose agents may be stopped: for `turn.end_call()`.",
    )
    agora_basic_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("AGORA_BASIC_KEY"),
        description="The customer ID for Agora's REST API.",
    )
    agora_basic_secret: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("AGORA_BASIC_SECRET"),
        description="The customer secret for Agora's REST API.",
    )
    agora_area: Literal["global", "cn"] = Field(
        "global",
        validation_alias=AliasChoices("AGORA_AREA"),
        description="Where that API is: `global`, or `cn` for mainland China.",
    )
    agora_agents_api_base_url: str | None = Field(
        None,
        validation_alias=AliasChoices("AGORA_AGENTS_API_BASE_URL"),
        description="Another host for that API.",
    )
    agora_webhook_secret: SecretStr | None = Field(
        None, description="The secret of Agora's notifications: with it, `/webhooks/agora` takes the engine's events."
    )
    voice: str | None = Field(
        None,
        description="What turns replies into sound for engines that ask for it: `espeak`, `espeak:de`, "
        "`openai:gpt-4o-mini-tts`.",
    )
    voice_base_url: str | None = Field(
        None, description="Root of the API of an `openai` voice, if it is not that of the model."
    )
    voice_api_key: SecretStr | None = Field(
        None, description="The server's key for the voice, if it is not that of the model."
    )
    warm: bool = Field(True, description="Connect to the provider at start, and stay connected.")
    debug: bool = Field(False, description="Log exceptions with their messages, which may hold callers' words.")

    @field_validator("fillers", mode="before")
    @classmethod
    def _split_fillers(cls, value: Any) -> Any:
        return [each.strip() for each in value.split("|") if each.strip()] if isinstance(value, str) else value

    def policy(self) -> Policy:
        """Return what is done against silence. Raises ConfigError."""
        return Policy(
            hedge_after=None if self.hedge_after == "none" else self.hedge_after,
            first_token_timeout=self.first_token_timeout,
            reasoning_timeout=self.reasoning_timeout,
            stall_timeout=self.stall_timeout,
            turn_timeout=self.turn_timeout,
            fillers=tuple(self.fillers),
            fill_after=self.fill_after,
            apology=self.apology,
            on_cut=self.on_cut,
        )

    def agora(self) -> dict[str, str] | None:
        """Return what stops an agent of Agora's, as `Agents` takes it; None when a part of it is missing."""
        key, secret = self.agora_basic_key, self.agora_basic_secret
        if not self.agora_app_id or key is None or secret is None:
            return None
        return {
            "app_id": self.agora_app_id,
            "key": key.get_secret_value(),
            "secret": secret.get_secret_value(),
            "area": self.agora_area,
            "base_url": self.agora_agents_api_base_url or "",
        }

    def webhook_secret(self) -> str | None:
        """Return what events are signed with; None when there is none."""
        return self.agora_webhook_secret.get_secret_value() if self.agora_webhook_secret else None

    @field_validator("keys", "models", "session", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        return [each.strip() for each in value.split(",")] if isinstance(value, str) else value
