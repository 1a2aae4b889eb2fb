"""What an engine leaves in its history is put right before anybody sees it; what a plain client sends is left alone."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from strict_servers import JUDGES
from test_contract_requests import R2

from firstword import App, Turn, plugins
from firstword.images import Images
from firstword.platforms import Asked, agora
from firstword.stages.tidy import tidy
from firstword.testing import Phone, run, talk

Json = dict[str, Any]
SYSTEM = {"role": "system", "content": "Be brief."}
NOTE = {
    "role": "system",
    "content": 'The caller interrupted your last reply. The last words that were heard are: "Why did the"',
}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def said(role: str, content: Any, turn_id: int, **metadata: Any) -> Json:
    """A message as Agora's engine sends it with `vendor: custom`."""
    return {"role": role, "content": content, "turn_id": turn_id, "timestamp": 1, "metadata": metadata}


def plain(messages: list[Json]) -> list[Json]:
    """The messages as a model is to see them."""
    return [{"role": each["role"], "content": each["content"]} for each in messages]


CUT = [
    SYSTEM,
    said("user", "Tell me a joke", 1, source="asr"),
    said("assistant", "Why did the ", 1, interrupted=True, original="Why did the chicken cross the road?"),
    said("user", "A story", 2, source="asr"),
    said("user", "A story instead", 2, source="asr"),
]


async def gets(messages: list[Json], **settings: Any) -> tuple[list[Json], Turn]:
    """Return the messages that reach the model, and the turn."""
    score = await talk(say=messages, request={"turn_id": 2, "channel": "room-7"}, **settings)
    [record] = score.seen
    assert score.turn is not None
    return record.body["messages"], score.turn


async def test_a_model_gets_what_was_said_once() -> None:
    """The engine speculated: the caller's words stand there in pieces and whole."""
    got, turn = await gets(CUT)

    assert got == plain([*CUT[:3], CUT[4]])
    assert turn.text == "A story instead"


async def test_a_model_is_told_that_it_was_cut_off() -> None:
    """`note_interruptions`: what was spoken is in the history, what was generated is not, and one line says so."""
    got, turn = await gets(CUT, note_interruptions=True)

    assert got == [*plain(CUT[:3]), NOTE, {"role": "user", "content": "A story instead"}]
    marks = turn.engine["messages"]
    assert [mark.get("turn_id") for mark in marks] == [None, 1, 1, None, 2]  # side by side with the messages
    assert "chicken" not in str(got) and marks[2]["metadata"]["original"].endswith("road?")


async def test_nothing_is_said_of_an_interruption_that_is_over() -> None:
    """R2: the engine has asked since whether somebody is still there."""
    got, _ = await gets(R2["messages"], note_interruptions=True)
    assert got == plain(R2["messages"])


async def test_hooks_see_what_the_model_gets() -> None:
    """A hook counts the caller's turns; the words that were sent twice are one of them."""
    seen: list[list[Json]] = []
    app = App(base_url="https://models.example/v1", note_interruptions=True)
    app.before_turn(lambda turn: seen.append(list(turn.messages)))
    score = await talk(app, say=CUT, request={"turn_id": 2})

    assert seen == [score.seen[0].body["messages"]]


@pytest.mark.parametrize("platform", ["auto", "openai"])
async def test_a_client_that_is_no_engine_means_what_it_sends(platform: str) -> None:
    """The same words twice, from a plain client: they are his."""
    messages = [{"role": "user", "content": "No"}, {"role": "user", "content": "No"}]
    score = await talk(say=messages, platform=platform, note_interruptions=True, keep_images=2)
    assert score.seen[0].body["messages"] == messages

    engine = await talk(say=messages, platform="agora")  # the user says that all who call are Agora's
    assert engine.seen[0].body["messages"] == messages[1:]


def test_an_engine_that_keeps_its_images_is_not_remembered() -> None:
    """Vapi's history has them: nothing of it is kept here."""
    memory = Images(9)
    for platform, count in (("vapi", 0), ("agora", 1)):
        messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, PICTURE]}]
        tidy(notes=False, images=memory)(Turn(request={"messages": messages}, platform=platform, session="s1"))
        assert len(memory._sessions) == count


async def test_an_image_that_the_engine_forgets_is_put_back() -> None:
    """`keep_images`: the caller shows something, and asks about it in the next turn; one turn later it is gone."""
    shown = [said("user", [{"type": "text", "text": "What is this?"}, PICTURE], 1)]
    later = [said("user", "What is this?", 1), said("assistant", "A cat.", 1), said("user", "And its colour?", 2)]
    last = [*later, said("assistant", "Black.", 2), said("user", "Its name?", 3)]

    async def main() -> list[Any]:
        async with Phone(keep_images=1, note_interruptions=True) as phone:
            for number, messages in enumerate((shown, later, last), 1):
                await phone.talk(messages, request={"turn_id": number, "channel": "room-7"})
            await phone.talk(later, request={"turn_id": 2, "channel": "room-8"})
            return [record.body["messages"][0]["content"] for record in phone.seen]

    image = shown[0]["content"]
    assert await run(main) == [image, image, "What is this?", "What is this?"]


async def test_the_engines_number_finds_an_image_where_its_words_are_not_enough() -> None:
    """The engine has cut off the beginning of the history; its marks stay side by side with the messages."""
    shown = [
        said("user", "Hello", 1),
        said("assistant", "Hi!", 1),
        said("user", [{"type": "text", "text": "What is this?"}, PICTURE], 2),
    ]
    later = [said("user", "What is this?", 2), said("assistant", "A cat.", 2), said("user", "And its colour?", 3)]

    async def main() -> tuple[Any, Any]:
        async with Phone(keep_images=1) as phone:
            for number, messages in enumerate((shown, later), 2):
                score = await phone.talk(messages, request={"turn_id": number, "channel": "room-7"})
            assert score.turn is not None
            return phone.seen[1].body["messages"][0]["content"], score.turn.engine["messages"]

    content, marks = await run(main)
    assert content == shown[2]["content"]
    assert [mark["turn_id"] for mark in marks] == [2, 2, 3]


async def test_images_are_forgotten_as_a_rule() -> None:
    """Nobody asked for it: nothing is kept of what a caller shows."""
    later = [said("user", "What is this?", 1), said("assistant", "A cat.", 1), said("user", "And its colour?", 2)]

    async def main() -> Any:
        async with Phone() as phone:
            shown = [said("user", [{"type": "text", "text": "What is this?"}, PICTURE], 1)]
            await phone.talk(shown, request={"turn_id": 1, "channel": "room-7"})
            await phone.talk(later, request={"turn_id": 2, "channel": "room-7"})
            return phone.seen[1].body["messages"]

    assert await run(main) == plain(later)


@pytest.mark.parametrize("name", JUDGES)
def test_a_note_is_taken_by_every_provider(name: str) -> None:
    """It is a system message in the middle, which some refuse, and of which Gemini would heed nothing else."""
    turn = agora.platform.read(Asked({"turn_id": 2, "messages": copy.deepcopy(CUT)}, {}, {}, "/chat/completions", None))
    tidy(notes=True, images=None)(turn)
    provider = plugins.load("providers", name)
    provider = provider.strictly() if name == "openai" else provider
    sent = provider.request(turn, model="m", base_url="https://models.example/v1", key=None)
    body = msgspec.json.decode(sent.body)

    assert JUDGES[name](body) is None
    assert NOTE["content"] in str(body["messages"]) and "Be brief." in str(body["messages"])


def test_marks_that_do_not_fit_are_not_looked_at() -> None:
    """A platform of somebody else's keeps something else under that name."""
    messages = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}]
    turn = Turn(request={"messages": messages}, engine={"messages": [{"turn_id": 1}]})
    tidy(notes=True, images=Images(1))(turn)
    assert turn.messages == messages[1:]

    odd = Turn(request={"messages": messages[1:]}, engine={"messages": [{"metadata": "interrupted", "turn_id": "x"}]})
    tidy(notes=True, images=Images(1))(odd)
    assert odd.messages == messages[1:]
