"""A clock that jumps: an event loop on which an hour of waiting takes no time, and every timer rings to the moment.

Rules:
- When nothing is left to do at this moment, and all wait for a timer, time jumps to it. Computing takes no time.
- While a plain function runs in a thread, time stands still; what takes longer than `PATIENCE` takes its true time.
- While a socket, a pipe or whatever else leads out of the loop is open, each wait takes its true time.
- When nobody can ever go on, that is an error. A thread that was started by hand is not seen: it has `PATIENCE` then.
- `clock.now()` tells the jumping time on such a loop and in its threads, and the true time everywhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

from firstword import clock

PATIENCE = 1.0  # seconds of true time; what takes as long in a thread waits for something, it does not compute
THREADS = 64  # as the App's own

Result = TypeVar("Result")


# --- who has which time ---------------------------------------------------------------------------


class _Clock:
    """What stands in the place of `clock.now` while any jumping loop runs."""

    def __init__(self) -> None:
        self._loops: dict[int, JumpingLoop] = {}  # by the thread that has its time
        self._lock = threading.Lock()

    def __call__(self) -> float:
        loop = self._loops.get(threading.get_ident())
        return time.monotonic() if loop is None else loop.time()

    @contextlib.contextmanager
    def tells(self, loop: JumpingLoop) -> Iterator[None]:
        """Tell this thread the time of `loop`, for as long as this lasts."""
        thread = threading.get_ident()
        with self._lock:
            before = self._loops.get(thread)
            self._loops[thread] = loop
            vars(clock)["now"] = self
        try:
            yield
        finally:
            with self._lock:
                if before is None:
                    del self._loops[thread]
                else:
                    self._loops[thread] = before
                if not self._loops:
                    vars(clock)["now"] = time.monotonic


_clock = _Clock()  # one, because the place that it stands in is one


# --- the loop -------------------------------------------------------------------------------------


class _Selector(selectors.DefaultSelector):
    """Waits by letting time jump; what comes from outside is waited for in true time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0  # seconds
        self.awaited: dict[object, float] = {}  # what threads will bring, and since when, in true time
        self.running: dict[object, float] = {}  # the functions that run in threads, awaited or not, and since when
        self.settling: list[asyncio.Future[None]] = []  # those who wait until nothing is left to do at this moment
        self.wires: dict[int, socket.socket] = {}  # by number: both ends are here, so nothing comes from outside
        self.outside: set[int] = set()  # the numbers of all other files

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        wire = self.wires.get(key.fd)
        if wire is None or wire.fileno() != key.fd:  # that one is closed, and its number is another's now
            self.outside.add(key.fd)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self.outside.discard(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        if self.settling and not self.awaited:
            for waiter in self.settling:
                if not waiter.done():
                    waiter.set_result(None)
            self.settling.clear()
            return []
        began = time.monotonic()
        if not self.outside:
            jobs = [*list(self.awaited.values()), *list(self.running.values())]  # threads change the latter
            if not jobs and timeout is None:
                return super().select(PATIENCE) or _despair()
            if not jobs:
                self.now += timeout or 0.0
                return []
            stands = min(jobs) + PATIENCE - began
            if stands > 0:
                return super().select(stands)
        found = super().select(timeout)
        passed = time.monotonic() - began
        self.now += passed if timeout is None or (found and passed < timeout) else timeout
        return found


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time begins at 0 and jumps."""

    def __init__(self) -> None:
        self._jumps = _Selector()
        super().__init__(self._jumps)
        self._jumps.outside.clear()  # the loop's own pipe, by which threads wake it
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="jumping")
        self.set_default_executor(self._threads)
        self.lost: list[BaseException] = []  # what callbacks have raised, and nobody can catch
        self.set_exception_handler(self._lose)

    def _lose(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.default_exception_handler(context)
        if isinstance(context.get("exception"), BaseException):
            self.lost.append(context["exception"])

    def time(self) -> float:
        """Return the jumping time, in seconds."""
        return self._jumps.now

    def wire(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a connection within this loop; what one end has written the other can read at once."""
        ends = socket.socketpair()
        self._jumps.wires.update((end.fileno(), end) for end in ends)
        return ends

    async def settle(self) -> None:
        """Return when nothing is left to do at this moment, and time would jump."""
        waiter: asyncio.Future[None] = self.create_future()
        self._jumps.settling.append(waiter)
        await waiter

    def run_in_executor(  # type: ignore[override]  # typeshed's own is generic in a way that 3.10 cannot write down
        self, executor: Executor | None, func: Callable[..., Result], *args: Any
    ) -> asyncio.Future[Result]:
        """Call a plain function in a thread; meanwhile time stands still."""
        if executor is None:
            func = self._counted(func)
        future = super().run_in_executor(executor, func, *args)
        # Done is told on this loop: until then the result is on its way, although the function has returned.
        self._jumps.awaited[future] = time.monotonic()
        future.add_done_callback(self._jumps.awaited.pop)
        return future

    def _counted(self, func: Callable[..., Result]) -> Callable[..., Result]:
        running = self._jumps.running

        def call(*args: Any) -> Result:
            running[call] = time.monotonic()
            try:
                with _clock.tells(self):
                    return func(*args)
            finally:
                self.call_soon_threadsafe(running.pop, call)

        return call

    def end(self) -> None:
        """End all that was begun on this loop, and close it; threads are waited for."""
        try:
            left = asyncio.all_tasks(self)
            for task in left:
                task.cancel()
            if left:
                self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.run_until_complete(self.shutdown_asyncgens())
        finally:
            self._threads.shutdown()
            self.close()


def _despair() -> NoReturn:
    waiting = [_place(task) for task in asyncio.all_tasks(asyncio.get_running_loop())]
    raise RuntimeError(
        f"Everybody waits, and nothing is left that could wake anybody: {', '.join(sorted(waiting))}.\n"
        "hint: look for an event that nobody sets"
    )


def _place(task: asyncio.Task[Any]) -> str:
    """Return where a task waits: the last of the functions that wait for one another."""
    names = []
    waiting: Any = task.get_coro()
    while hasattr(waiting, "cr_await"):
        names.append(waiting.__qualname__)
        waiting = waiting.cr_await
    return " > ".join(names[-3:]) or task.get_name()


# --- the doors ------------------------------------------------------------------------------------


async def run(main: Callable[[], Awaitable[Result]]) -> Result:
    """Run `main()` to its end on a jumping loop, in a thread of its own, and return what it returns.

    On a jumping loop it simply awaits `main()`. Raises what `main` raises, or else a callback or a task that nobody
    awaited; RuntimeError when everybody waits for ever, or when a task was left behind.
    """
    if isinstance(asyncio.get_running_loop(), JumpingLoop):
        return await main()
    loop = JumpingLoop()
    task = loop.create_task(_called(main))
    outcome: Future[Result] = Future()
    outcome.set_running_or_notify_cancel()

    def live() -> None:
        try:
            outcome.set_result(_live(loop, task))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=live, name="jumping clock")
    thread.start()
    try:
        return await asyncio.wrap_future(outcome)
    except asyncio.CancelledError:
        with contextlib.suppress(RuntimeError):  # it is over
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()


def run_here(main: Callable[[], Awaitable[Result]]) -> Result:
    """Run `main()` as `run` does, in this thread, which must have no loop that runs."""
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("A loop runs in this thread already.\nhint: write `await run(main)`")
    loop = JumpingLoop()
    return _live(loop, loop.create_task(_called(main)))


async def _called(main: Callable[[], Awaitable[Result]]) -> Result:
    return await main()


def _live(loop: JumpingLoop, task: asyncio.Task[Result]) -> Result:
    with _clock.tells(loop):
        try:
            result = loop.run_until_complete(task)
            loop.run_until_complete(loop.settle())
            left = [_place(each) for each in asyncio.all_tasks(loop)]
            if left:
                raise RuntimeError(
                    f"Tasks were left behind: {', '.join(sorted(left))}.\n"
                    "hint: await each task that you start, or cancel it"
                )
            if loop.lost:
                raise loop.lost[0]
            return result
        finally:
            loop.end()
