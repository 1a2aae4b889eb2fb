"""Images that an engine forgets are put back for some turns: in their session, beside their words, within bounds."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from firstword import Turn, images
from firstword.images import Images
from firstword.testing import run_here

Json = dict[str, Any]


def picture(name: str = "one", size: int = 0) -> Json:
    """An image part; `size` bytes of data."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{name}{'A' * size}"}}


def shows(text: str, *pictures: Json) -> Json:
    return {"role": "user", "content": [{"type": "text", "text": text}, *pictures]}


def says(text: str) -> Json:
    return {"role": "user", "content": text}


REPLY = {"role": "assistant", "content": "A cat."}
FIRST = [shows("What is this?", picture())]
LATER = [says("What is this?"), REPLY, says("And its colour?")]


class Call:
    """One session's turns. What each says and gets; `numbered`: the engine counts turns, as Agora's does."""

    def __init__(self, memory: Images, session: str | None = "s1", *, numbered: bool = True, key: str = "k") -> None:
        self._memory, self._session, self._numbered, self._key = memory, session, numbered, key
        self.number = 0

    def gets(self, messages: list[Json], *numbers: int, again: bool = False) -> list[Json]:
        """Return a turn's messages as the model gets them; `numbers` are those of its messages."""
        self.number += not again
        turn = Turn(
            request={"messages": messages},
            session=self._session,
            number=self.number if self._numbered else None,
            headers={"authorization": self._key},
        )
        marks = [*numbers] if self._numbered else [None] * len(messages)
        before = copy.deepcopy(messages)
        made = self._memory.restored(turn, messages, marks)  # type: ignore[arg-type]
        assert messages == before
        return made


@pytest.mark.parametrize("numbered", [True, False], ids=["numbered", "by words"])
def test_an_image_is_put_back_for_so_many_turns(numbered: bool) -> None:
    """The caller shows a cat and asks about it for three turns; the memory holds two."""
    call = Call(Images(2), numbered=numbered)
    assert call.gets(FIRST, 1) is FIRST
    second = call.gets(LATER, 1, 1, 2)
    third = [*LATER, REPLY, says("Its name?")]

    assert second == [FIRST[0], *LATER[1:]]
    assert call.gets(third, 1, 1, 2, 2, 3)[0] == FIRST[0]
    fourth = [*third, REPLY, says("Its age?")]
    assert call.gets(fourth, 1, 1, 2, 2, 3, 3, 4) is fourth


def test_a_turn_that_is_sent_again_is_not_another_turn() -> None:
    """Engines try again; the image is as old as it was."""
    call = Call(Images(1))
    call.gets(FIRST, 1)
    call.gets(FIRST, 1, again=True)

    assert call.gets(LATER, 1, 1, 2)[0] == FIRST[0]
    assert call.gets(LATER, 1, 1, 2, again=True)[0] == FIRST[0]
    assert call.gets(LATER, 1, 1, 3)[0] == says("What is this?")


@pytest.mark.parametrize(("session", "key"), [("s2", "k"), ("s1", "another"), (None, "k")])
def test_nobody_sees_the_images_of_somebody_else(session: str | None, key: str) -> None:
    """Another session, the same name with another key, and a caller without a session."""
    memory = Images(5)
    Call(memory).gets(FIRST, 1)
    stranger = Call(memory, session, key=key)

    assert stranger.gets(LATER, 1, 1, 2) is LATER
    assert stranger.gets(FIRST, 3) is FIRST


def test_the_same_words_with_two_images_keep_their_own() -> None:
    """`What is this?` three times: a cat, a dog, and no picture."""
    call = Call(Images(9), numbered=False)
    one, two = shows("What is this?", picture("cat")), shows("What is this?", picture("dog"))
    bare = says("What is this?")
    call.gets([one])
    call.gets([bare, REPLY, two])

    assert call.gets([bare, REPLY, bare, REPLY, bare]) == [one, REPLY, two, REPLY, bare]


def test_an_image_is_not_put_beside_other_words() -> None:
    """The engine's history was cut off at its start, or counts anew: rather no image than a wrong one."""
    call = Call(Images(9), numbered=False)
    call.gets([says("Hello"), REPLY, shows("What is this?", picture())])
    trimmed = [says("What is this?"), REPLY, says("What is this?")]
    assert call.gets(trimmed) is trimmed

    counted = Call(Images(9))
    counted.gets(FIRST, 1)
    other = [says("Hello"), REPLY, says("What is this?")]
    assert counted.gets(other, 1, 1, 2) is other


def test_an_image_without_words_belongs_to_the_words_behind_it() -> None:
    """Agora sends it as a message of its own, and later that message is gone."""
    for numbered in (True, False):
        call = Call(Images(1), numbered=numbered)
        alone = {"role": "user", "content": [picture()]}
        request = [says("Hello"), REPLY, alone, says("What is this?")]
        assert call.gets(request, 1, 1, 2, 2) is request

        later = [says("Hello"), REPLY, says("What is this?"), REPLY, says("Ah")]
        got = call.gets(later, 1, 1, 2, 2, 3)
        assert got[2]["content"] == [picture(), {"type": "text", "text": "What is this?"}]


def test_an_image_alone_at_the_end_comes_back_where_its_message_does() -> None:
    """Nothing but a picture was sent; an engine that keeps its empty message gets it back there."""
    call = Call(Images(2))
    call.gets([{"role": "user", "content": [picture()]}], 1)

    assert call.gets([says(""), REPLY, says("Ah")], 1, 1, 2)[0]["content"] == [picture()]
    gone = [REPLY, says("Oh")]
    assert call.gets(gone, 1, 3) is gone


def test_text_in_parts_keeps_its_parts() -> None:
    """The engine sends the words as a part; what stands beside them stays."""
    call = Call(Images(1))
    call.gets(FIRST, 1)
    part = {"type": "text", "text": "What is this?", "x": 1}

    [got, *_] = call.gets([{"role": "user", "content": [part]}, REPLY, says("Ah")], 1, 1, 2)
    assert got["content"] == [part, picture()]


def test_an_engine_that_keeps_its_images_is_left_alone() -> None:
    """The image is in the history already: it is neither put there twice nor kept twice."""
    call = Call(Images(1))
    call.gets(FIRST, 1)
    kept = [*FIRST, REPLY, says("And its colour?")]
    assert call.gets(kept, 1, 1, 2) is kept
    later = [*LATER, REPLY, says("Its name?")]
    assert call.gets(later, 1, 1, 2, 2, 3) is later  # it came two turns ago


def test_what_is_kept_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions, bytes of all and of one: the oldest go first."""
    monkeypatch.setattr(images, "MAX_SESSIONS", 2)
    monkeypatch.setattr(images, "MAX_BYTES", 250_000)
    monkeypatch.setattr(images, "MAX_BYTES_OF_ONE", 150_000)
    memory = Images(9)
    calls = [Call(memory, f"s{at}") for at in range(3)]
    for call in calls:
        call.gets(FIRST, 1)
    assert [call.gets(LATER, 1, 1, 2)[0] == FIRST[0] for call in calls] == [False, True, True]

    big = Call(memory, "big")
    two = [shows("One", picture("one", 100_000)), REPLY, shows("Two", picture("two", 100_000))]
    big.gets(two, 1, 1, 2)
    got = big.gets([says("One"), REPLY, says("Two"), REPLY, says("Go on")], 1, 1, 2, 2, 3)
    assert [isinstance(each["content"], list) for each in got] == [False, False, True, False, False]

    for at in range(3):
        Call(memory, f"b{at}").gets([shows("One", picture(f"{at}", 100_000))], 1)
    assert memory._size < 250_000 and len(memory._sessions) == 2
    Call(memory, "huge").gets([shows("One", picture("one", 200_000))], 1)
    assert "huge" not in str(memory._sessions) and memory._size == sum(each.size for each in memory._sessions.values())


def test_a_session_that_is_silent_is_forgotten() -> None:
    """The call is over, and its pictures are nobody's any more."""

    async def main() -> list[bool]:
        memory, other = Images(9), Images(9)
        calls = [Call(memory), Call(other)]
        for call in calls:
            call.gets(FIRST, 1)
        await asyncio.sleep(images.KEPT - 1.0)
        assert calls[0].gets(LATER, 1, 1, 2)[0] == FIRST[0]
        await asyncio.sleep(2.0)
        Call(other, "s2").gets(FIRST, 1)  # whoever comes clears up
        assert len(other._sessions) == 1
        await asyncio.sleep(images.KEPT)
        return [calls[0].gets(LATER, 1, 1, 3)[0] == FIRST[0]]

    assert run_here(main) == [False]
