"""A GGUF model in the ChatML form, run by llama.cpp through `llama-cpp-python`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import llama_cpp
import msgspec
from llama_cpp.llama_grammar import json_schema_to_gbnf

from .lines import Order
from .mind import Unfit

WINDOW = 2048  # tokens: what a slow core reads in 20 s; each costs the memory of 23 KB
SLICE = 16  # tokens, a fifth of a second on a slow core; with more of them at a time none is read faster
THREADS = 4  # at most: so small a model is hardly faster with more
TEMPERATURE, TOP_P = 0.2, 0.9  # what the makers of SmolLM2 advise
RULES = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # as its own template has it
LARGEST_GRAMMAR = 100_000  # characters; llama.cpp reads a nested one of a million to its death
RANDOM = 0xFFFFFFFF  # llama.cpp's word for another seed each time


class Llama:
    """A loaded model."""

    window = WINDOW
    slice = SLICE
    rules = RULES

    def __init__(self, path: str) -> None:
        threads = max(min(os.cpu_count() or 1, THREADS + 1) - 1, 1)  # one core is the server's
        self._llama = llama_cpp.Llama(
            path, n_ctx=WINDOW, n_batch=SLICE, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self._begin, self._end = (self._mark(mark) for mark in (b"<|im_start|>", b"<|im_end|>"))
        self._line = self.tokens("\n")
        self._ends = {self._end, self._llama.token_eos()}

    def _mark(self, mark: bytes) -> int:
        token, *more = self._llama.tokenize(mark, add_bos=False, special=True)
        if more:
            raise ValueError("the model does not speak ChatML")
        return int(token)

    def tokens(self, words: str) -> list[int]:
        """Return the tokens of words, of which none is a mark."""
        return list(self._llama.tokenize(words.encode("utf-8", "replace"), add_bos=False, special=False))

    def wrapped(self, role: str, tokens: list[int]) -> list[int]:
        """Return one message, with its marks."""
        return [self._begin, *self.tokens(f"{role}\n"), *tokens, self._end, *self._line]

    def opening(self) -> list[int]:
        """Return what makes the model speak."""
        return [self._begin, *self.tokens("assistant\n")]

    def recall(self, prompt: Sequence[int], *, afresh: bool) -> int:
        """Keep what `prompt` begins with as the last one did, and return its length; `afresh` = keep nothing."""
        llama = self._llama
        known = 0
        if not afresh:
            pairs = zip(llama.input_ids[: llama.n_tokens].tolist(), prompt[:-1], strict=False)
            known = next(
                (at for at, (old, new) in enumerate(pairs) if old != new), min(llama.n_tokens, len(prompt) - 1)
            )
        llama.n_tokens = known  # what is read next takes the place of the rest
        return known

    def read(self, tokens: Sequence[int]) -> None:
        """Read on in the prompt."""
        self._llama.eval(tokens)

    def say(self, prompt: Sequence[int], order: Order) -> Iterator[int]:
        """Yield the tokens of the answer to a prompt, of which all but the last is read. Raises Unfit."""
        self._llama.set_seed(RANDOM if order.seed is None else order.seed & 0x7FFFFFFF)
        saying = self._llama.generate(
            prompt,
            temp=TEMPERATURE if order.temperature is None else order.temperature,
            top_p=TOP_P if order.top_p is None else order.top_p,
            presence_penalty=order.presence,
            frequency_penalty=order.frequency,
            logits_processor=[_biased(order.bias)] if order.bias else None,
            grammar=self._grammar(order.schema) if order.schema is not None else None,
        )
        return self._until_the_end(saying)

    def _until_the_end(self, saying: Iterator[int]) -> Iterator[int]:
        for token in saying:
            if token in self._ends:
                return
            yield token

    def spelled(self, token: int) -> bytes:
        """Return the bytes of a token, which may be a part of a character."""
        return bytes(self._llama.detokenize([token]))

    def _grammar(self, schema: dict[str, Any]) -> Any:
        """Return the grammar of what fits a JSON schema. Raises Unfit for what cannot be expressed in one."""
        try:
            rules = json_schema_to_gbnf(msgspec.json.encode(schema).decode())
        except Exception as error:  # a schema is a caller's: it may be anything, and so may what that raises
            raise Unfit("response_format") from error
        if len(rules) > LARGEST_GRAMMAR:
            raise Unfit("response_format")
        # llama.cpp returns nothing for a grammar that it cannot read, and crashes later if it is used all the same.
        vocabulary = llama_cpp.llama_model_get_vocab(self._llama.model)
        grammar = llama_cpp.llama_sampler_init_grammar(vocabulary, rules.encode(), b"root")
        if not grammar:
            raise Unfit("response_format")
        llama_cpp.llama_sampler_free(grammar)
        return llama_cpp.LlamaGrammar.from_string(rules)


def _biased(bias: dict[int, float]) -> Callable[[Any, Any], Any]:
    """Return what adds a bias to the scores of tokens, as llama-cpp-python takes it."""

    def add(_: Any, scores: Any) -> Any:
        changed = scores.copy()
        for token, more in bias.items():
            if 0 <= token < len(changed):
                changed[token] += more
        return changed

    return add
