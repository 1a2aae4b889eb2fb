"""Each provider gets what it accepts: what it would refuse does not reach it, and all else does."""

from __future__ import annotations

import copy
import typing
from typing import Any

import msgspec
import openai.types.chat as theirs
import pytest
from hypothesis import given
from openai.types.chat import completion_create_params
from strict_servers import GEMINI, GROQ, JUDGES, MISTRAL
from test_contract_requests import R1, R2, R3, R4, R5, R6, R7
from test_history_properties import CONVERSATIONS

from firstword import Turn, plugins
from firstword.errors import BadRequest
from firstword.history import SILENT
from firstword.platforms import Asked, agora, openai
from firstword.providers._accepts import ANYTHING, MESSAGES, ROOT, Accepts, fitted
from firstword.providers.mistral import its_id

Json = dict[str, Any]
REQUESTS = {"R1": R1, "R2": R2, "R3": R3, "R4": R4, "R5": R5, "R6": R6, "R7": R7}
ODD: Json = {
    **R7,
    "turn_id": 4,
    "metadata": {"a": "b"},
    "logprobs": True,
    "x_custom": [None],
    "seed": 7,
    "max_completion_tokens": 50,
    "stream_options": {"include_usage": True},
    "messages": [
        {"role": "developer", "content": "Be brief.", "name": "ops", "timestamp": 1},
        {"role": "assistant", "content": "Hi!", "turn_id": 1, "metadata": {"source": "greeting"}},
        {"role": "system", "content": "It is noon."},
        *R7["messages"],  # type: ignore[misc]
        {"role": "user", "content": "Stop", "name": "Ann", "time": {"begin": 1}},
        {"role": "assistant", "content": "", "reasoning_content": "Hm.", "refusal": None},
        {"role": "user", "content": [{"type": "text", "text": "", "cache_control": {}}]},
    ],
    "tools": [{**R7["tools"][0], "server": {"url": "x"}, "async": True}],  # type: ignore[index,dict-item]
    "tool_choice": "required",
}


def dialect(name: str) -> Any:
    """A provider of ours; OpenAI's dialect as it is for a strict server."""
    provider = plugins.load("providers", name)
    return provider.strictly() if name == "openai" else provider


def leaves(provider: Any, body: Json, platform: Any = openai.platform, **more: Any) -> Json:
    """The body that a provider sends for a request of an engine."""
    turn = platform.read(Asked(copy.deepcopy(body), {}, {}, "/chat/completions", None))
    given = copy.deepcopy(turn.request)
    sent = provider.request(turn, model="m", base_url="https://models.example/v1", key=None, **more)
    assert turn.request == given  # other models of a race get it as well
    return dict(msgspec.json.decode(sent.body))


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("platform", [agora.platform, openai.platform], ids=["agora", "openai"])
@pytest.mark.parametrize("name", JUDGES)
def test_no_provider_is_asked_what_it_refuses(name: str, platform: Any, request_name: str) -> None:
    """What Agora's engine sends, R1 to R7; and the same when nobody has taken the engine's own fields out."""
    body = leaves(dialect(name), REQUESTS[request_name], platform)
    assert JUDGES[name](body) is None


@pytest.mark.parametrize("name", JUDGES)
def test_the_oddest_request_is_taken_by_each(name: str) -> None:
    """A greeting, a system message in the middle, fields of engines, caches and other providers, blank speech."""
    assert JUDGES[name](leaves(dialect(name), ODD)) is None


@pytest.mark.parametrize("name", JUDGES)
def test_each_judge_refuses_the_same_request_as_it_came(name: str) -> None:
    """The tests above say nothing if whoever judges takes everything."""
    odd = {**ODD, "messages": [*ODD["messages"], {"role": "developer", "content": ""}]}
    assert JUDGES[name](leaves(plugins.load("providers", "openai"), odd)) is not None


@pytest.mark.parametrize("name", JUDGES)
@given(messages=CONVERSATIONS)
def test_whatever_a_conversation_holds_is_taken(name: str, messages: list[Json]) -> None:
    """Any order of anybody's messages, with or without words."""
    body = leaves(dialect(name), {"model": "m", "messages": messages})
    assert JUDGES[name](body) is None


@pytest.mark.parametrize("name", ["groq", "mistral", "gemini"])
def test_what_a_provider_knows_reaches_it(name: str) -> None:
    """A parameter that only this one has is not lost to another one's list."""
    known = {"groq": GROQ, "mistral": MISTRAL, "gemini": GEMINI}[name] - {"messages", "model", "stream", "tools"}
    fields: Json = {field: {"for": field} for field in known}
    sent = leaves(dialect(name), {**R1, **fields, "tools": [], "stream_options": {}})

    assert {field: sent.get(field) for field in known - {"stream_options"}} == {
        field: value for field, value in fields.items() if field != "stream_options"
    }


@pytest.mark.parametrize("name", ["openai", "anthropic", "deepseek"])
def test_a_provider_that_passes_over_unknown_fields_gets_them(name: str) -> None:
    """A promise: nobody here decides what a server may know."""
    message = {"role": "user", "content": "Hi", "x": 1}
    sent = leaves(plugins.load("providers", name), {"model": "m", "messages": [message], "x_custom": [None]})

    assert (sent["messages"], sent["x_custom"]) == ([message], [None])


def test_a_plain_conversation_is_left_alone() -> None:
    """OpenAI itself, and every server of which nobody has said more: the very same list."""
    plain = plugins.load("providers", "openai")
    assert plain.accepts is ANYTHING
    assert leaves(plain, R1) == {**R1, "model": "m", "stream": True}
    assert leaves(plain, R6)["messages"] == R6["messages"]


def test_what_is_known_is_what_openai_lists() -> None:
    """Its library is updated: a new field of the API is no unknown one."""
    listed = set(typing.get_type_hints(completion_create_params.CompletionCreateParamsBase)) | {"stream"}
    assert set(ROOT.split()) == listed
    for role in ("system", "developer", "user", "assistant", "tool", "function"):
        kind = getattr(theirs, f"ChatCompletion{role.title()}MessageParam")
        assert set(kind.__annotations__) == MESSAGES[role]
    assert set(theirs.ChatCompletionMessageFunctionToolCallParam.__annotations__) == MESSAGES["call"]


# --- one by one -------------------------------------------------------------------------------------


def test_mistrals_names_and_values() -> None:
    """Its own words for what others have too; a tool has to have parameters; `any` is what it calls `required`."""
    tools = [{"type": "function", "function": {"name": "clock"}}]
    asked = {**R1, "seed": 7, "max_completion_tokens": 50, "tools": tools, "tool_choice": "required", "stop": None}
    sent = leaves(dialect("mistral"), asked)

    assert (sent["random_seed"], sent["tool_choice"], sent["stop"]) == (7, "any", None)
    assert sent["max_tokens"] == 150  # said already
    assert sent["tools"][0]["function"] == {"name": "clock", "parameters": {"type": "object", "properties": {}}}
    assert leaves(dialect("mistral"), {**R6, "max_completion_tokens": 50})["max_tokens"] == 50
    chosen = {"type": "function", "function": {"name": "clock"}}
    assert leaves(dialect("mistral"), {**R1, "tool_choice": chosen})["tool_choice"] == chosen


def test_a_call_keeps_its_result_under_mistrals_id() -> None:
    """The history was another model's, or an engine gave the ids; what Mistral gave itself comes back as it was."""
    answer, result = leaves(dialect("mistral"), R7)["messages"][1:]
    assert answer["tool_calls"][0]["id"] == result["tool_call_id"] == its_id("call_1")

    assert its_id("D681PevKs") == "D681PevKs"
    ids = [its_id(each) for each in ("call_1", "call_2", "", None, "D681PevK", "D681PevKss", "\ud800", "ÄÖÜ123456")]
    assert len(set(ids)) == len(ids) and all(len(id) == 9 and id.isalnum() and id.isascii() for id in ids)


def test_calls_that_are_none_are_left_for_mistral_to_refuse() -> None:
    """A client's own history, with a call where none can be: its mistake, and no mistake of the server's."""
    odd: Json = {"role": "user", "content": "Hi", "tool_calls": [None, "x", {"id": "call_1"}]}
    [kept] = leaves(dialect("mistral"), {"model": "m", "messages": [{**odd, "role": "elf"}]})["messages"]
    assert kept["tool_calls"] == [None, "x", {"id": its_id("call_1")}]


def test_a_greeting_and_a_reminder_for_mistral() -> None:
    """R2: the engine's history, in which the agent speaks first, is cut off, and speaks twice in a row."""
    assert leaves(dialect("mistral"), R2, agora.platform)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": SILENT},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "Tell me a joke"},
        {"role": "assistant", "content": "Why did the \nAre you still there?"},
        {"role": "user", "content": "A story instead"},
    ]


def test_geminis_signature_comes_back_to_it_and_to_nobody_else() -> None:
    """Without it Gemini answers 400; with it Groq does."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"g": "=="}}
    said = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}, *said]}

    assert leaves(dialect("gemini"), body)["messages"][1]["tool_calls"] == [call]
    assert "extra_content" not in leaves(dialect("groq"), body)["messages"][1]["tool_calls"][0]


def test_deepseeks_reasoning_comes_back_to_it() -> None:
    """It has to stand beside the calls that it led to."""
    said = {"role": "assistant", "content": "", "reasoning_content": "Hm."}
    body = {
        **R1,
        "max_tokens": None,
        "max_completion_tokens": 9,
        "messages": [{"role": "developer", "content": "A"}, said],
    }
    sent = leaves(dialect("deepseek"), body)

    assert sent["messages"] == [{"role": "system", "content": "A"}, said]
    assert "max_completion_tokens" not in sent


def test_tools_that_are_no_functions_are_the_servers_own() -> None:
    """Groq's search, and whatever comes next."""
    tools = [{"type": "browser_search", "region": "de"}, "odd", {"type": "function"}]
    assert leaves(dialect("groq"), {**R1, "tools": tools})["tools"] == tools


def test_strict_on_top_of_a_provider_keeps_what_that_one_knows() -> None:
    """`Model("m", provider="groq", strict=True)`: its own lists, and the rest in the plainest form."""
    strict = plugins.load("providers", "groq").strictly()
    sent = leaves(strict, {**R2, "reasoning_format": "hidden"})

    assert sent["reasoning_format"] == "hidden"
    assert [each["role"] for each in sent["messages"]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert plugins.load("providers", "groq").accepts.alternates is False


def test_messages_that_a_hook_made_no_list_of_are_left_to_the_server() -> None:
    """It says what is wrong with them."""
    turn = Turn(request={"messages": ({"role": "user", "content": ""},)})
    for name in JUDGES:
        sent = dialect(name).request(turn, model="m", base_url="https://models.example/v1", key=None)
        assert b'"content":""' in sent.body


def test_what_is_nested_too_deeply_is_still_told() -> None:
    """The rules do not walk into what nobody can write."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    turn = Turn(request={"messages": [{"role": "user", "content": "Hi"}], "metadata": deep})
    with pytest.raises(BadRequest):
        dialect("groq").request(turn, model="m", base_url="https://models.example/v1", key=None)


def test_a_name_that_the_caller_used_itself_wins() -> None:
    """Both were sent; the server's own is what was meant for it."""
    accepts = Accepts(names={"seed": "random_seed"})
    assert fitted({"messages": [], "seed": 1, "random_seed": 2}, accepts) == {"messages": [], "random_seed": 2}
    assert fitted({"messages": []}, accepts) == {"messages": []}
