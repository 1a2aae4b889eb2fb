"""A store that is none: its name is never answered for, or what it says is no reply of a store's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

import pytest
from redis_of_a_test import until

from firstword.clock import timeout
from firstword.shared import store as store_module
from firstword.shared.address import read
from firstword.shared.store import Store

BUDGET = 0.1  # as in test_store.py


async def test_a_resolver_that_hangs_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's name is not answered for, and is asked for at each try: the threads that all share stay free."""
    monkeypatch.setattr(store_module, "CONNECT_TIMEOUT", 0.02)
    monkeypatch.setattr(store_module, "RETRY_AFTER", 0.0)
    answers, asked = threading.Event(), []
    resolve = socket.getaddrinfo

    def hang(host: str, *given: Any, **more: Any) -> Any:
        asked.append(host)
        answers.wait(20)
        return resolve("127.0.0.1", *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    store = Store(read("redis://store.internal"), budget=BUDGET, prefix="t")
    store.open()
    try:
        await until(lambda: asked)
        free = [asyncio.to_thread(int) for _ in range(40)]
        for _ in range(40):
            await asyncio.sleep(0.02)  # a try of the store's
        async with timeout(5):
            assert await asyncio.gather(*free) == [0] * 40
        assert asked == ["store.internal"]
    finally:
        answers.set()
        await store.close()


# What a store may say that is none, or is somebody else's.
ODD = [
    b"_\r\n",
    b"#t\r\n",
    b",nan\r\n",
    b"(123456789012345678901234567890\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"%1\r\n*0\r\n:1\r\n",
    b"~2\r\n:1\r\n:1\r\n",
    b"*2\r\n-ERR x\r\n_\r\n",
    b"*-5\r\n",
    b"$99999999999\r\n",
    b"!5\r\nERR x\r\n",
    b"|1\r\n+a\r\n+b\r\n",
    b"-\xff\xfe\r\n",
    b"-\r\n",
    b"*1\r\n" * 500,
    b">0\r\n",
    b">1\r\n:5\r\n",
    b">3\r\n$7\r\nmessage\r\n:1\r\n:2\r\n",
    b">3\r\n$7\r\nmessage\r\n+c\r\n$3\r\n\xff \x00\r\n",
    b"\x00\xff nonsense\r\n",
    b"+OK\r\n" * 50,
]


@pytest.mark.parametrize("reply", ODD, ids=range(len(ODD)))
async def test_nothing_that_a_store_says_breaks_it(reply: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is well until it is asked; then it says this. Whoever asks has an answer, and later it is there again."""
    odd = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := await reader.read(65536):
                calls = sum(data.count(b"\r\n%b\r\n" % name) for name in (b"HELLO", b"SELECT", b"SET", b"GET", b"PING"))
                told = b">3\r\n+subscribe\r\n+t:told\r\n:1\r\n" * data.count(b"SUBSCRIBE")
                writer.write(reply if odd else b"+OK\r\n" * calls + told)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = Store(read(f"redis://127.0.0.1:{port}"), budget=BUDGET, prefix="t")
    store.hear("turn", lambda said: None)
    store.open()
    try:
        await until(lambda: store.is_there)
        odd = True
        async with timeout(5):
            for _ in range(3):
                await store.ask("GET", "t:a")
        odd = False
        await until(lambda: store.is_there, within=15)
        assert store._task is not None and not store._task.done()
    finally:
        await store.close()
        server.close()
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []
