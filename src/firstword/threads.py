"""Call what blocks without holding up the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias

Job: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a plain function in a thread, so that it holds up nobody, and return what it returns."""

    def call() -> Any:
        try:
            return function(*arguments)
        except StopIteration as error:
            # No future can hold one: whoever awaits it would wait for ever.
            raise RuntimeError("the function raised StopIteration").with_traceback(error.__traceback__) from error

    return await asyncio.to_thread(call)


class OwnThread(Executor):
    """One thread for what is ours: users' functions may have blocked all those that `in_thread` shares.

    It is started when it is first used, and does one thing after the other. Whatever it hangs in, the end of the
    process does not wait for it, as it would for a pool's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job | None] | None = None

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function there, and return what it returns. Whoever is cancelled meanwhile does not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self, function, *arguments)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Have a function called, as an Executor does. Raises RuntimeError when no thread is to be had."""
        future: Future[Any] = Future()
        if self._jobs is None:
            jobs: SimpleQueue[Job | None] = SimpleQueue()
            threading.Thread(target=_work, args=(jobs,), name=self._name, daemon=True).start()
            self._jobs = jobs
        self._jobs.put((future, partial(function, *arguments, **named)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """End the thread when it has done what it was given; nobody waits for that."""
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            jobs.put(None)


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        future, call = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
        del job, future, call  # while it waits for the next one, it holds on to nothing
