"""Serving: what is refused before a port is opened, what a user is told, and how uvicorn is set up."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
import uvicorn

from firstword import App
from firstword.errors import ConfigError
from firstword.serving import check_free, options, say_how, serve, studio_block
from firstword.serving.workers import beside, share_port


@pytest.mark.parametrize(
    "url",
    [
        "https://x-8000.app.github.dev",
        "https://x-8000.app.github.dev/",
        "https://x-8000.app.github.dev/chat/completions",
        "https://x-8000.app.github.dev/chat/completions/",
    ],
)
def test_the_studio_block_ends_in_the_path_once(url: str) -> None:
    """The engine appends nothing to the URL; users paste it with and without the path."""
    llm = json.loads(studio_block(url))["llm"]
    assert llm["url"] == "https://x-8000.app.github.dev/chat/completions"
    assert (llm["vendor"], llm["params"], llm["api_key"]) == ("custom", {"model": "demo"}, "your-api-key-here")


def test_the_hint_is_no_part_of_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed for people goes to stderr; the block for AI Studio only when the URL is known."""
    say_how(8123, None)
    without = capsys.readouterr()
    say_how(8123, "https://example.com")
    with_url = capsys.readouterr()

    assert without.out == with_url.out == ""
    assert "localhost:8123/chat/completions" in without.err and "AI Studio" not in without.err
    assert with_url.err.startswith(without.err.rstrip("\n")) and "https://example.com/chat/completions" in with_url.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.com"])
def test_a_held_key_is_not_given_to_strangers(host: str) -> None:
    """The server has a key and nothing to tell callers apart: it does not even open the port."""
    with pytest.raises(SystemExit) as caught:
        serve(App(api_key="sk-held"), host=host, port=0)
    assert "LLM_API_KEY" in str(caught.value) and "hint: set FIRSTWORD_KEYS" in str(caught.value)
    assert "sk-held" not in str(caught.value)


@pytest.mark.parametrize("given", [{}, {"keys": ["one"], "api_key": "sk"}, {"open": True, "api_key": "sk"}], ids=str)
def test_what_is_safe_may_listen_everywhere(given: dict[str, object]) -> None:
    """No key is held, or callers have keys, or the operator says that something else guards the door."""
    App(**given).gate.check_bind("0.0.0.0")  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the workers share one socket")
def test_workers_sockets_share_a_port_and_nobody_else_gets_it() -> None:
    """The supervisor binds the port alone, and then once more for each worker; a second server is told so."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn binds it
        bound.bind(("127.0.0.1", 0))
        host, port = bound.getsockname()
        share_port(bound)
        with beside(bound) as other:
            with pytest.raises(ConfigError, match=f"Port {port} is in use"):
                check_free(host, port)
            for each in (bound, other):
                each.listen()
            with pytest.raises(ConfigError, match=f"Port {port} is in use"):
                check_free(host, port)
            with socket.create_connection((host, port)):
                pass
    check_free(host, port)


def test_uvicorn_understands_every_option() -> None:
    """The options are uvicorn's own; a caller's URL is not logged, and nobody says what server it is."""
    config = uvicorn.Config(App(), **options())
    config.load()
    assert (config.access_log, config.server_header, config.lifespan) == (False, False, "on")
    assert config.timeout_keep_alive >= 60  # longer than a caller listens and speaks between two turns


def test_setting_it_up_twice_changes_nothing() -> None:
    """The options are made anew each time: whoever changes theirs changes nobody else's."""
    options()["log_config"]["loggers"].clear()
    assert "firstword" in options()["log_config"]["loggers"]
    assert "firstword" not in uvicorn.config.LOGGING_CONFIG["loggers"]


def test_importing_is_quick() -> None:
    """A user's file imports Turn, a test imports App: what only a server or a command needs is not loaded."""
    heavy = (
        "pydantic",
        "typer",
        "uvicorn",
        "uvloop",
        "certifi",
        "importlib.metadata",
        "urllib.request",
        "email.message",
    )
    code = f"import sys, firstword; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
@pytest.mark.parametrize(
    ("wanted", "kept", "soft"),
    [(100, 100, 256), (300, 300, 400), (10_000, 3072, 4096)],
    ids=["few", "more", "too many"],
)
def test_a_process_takes_the_descriptors_that_it_needs(wanted: int, kept: int, soft: int) -> None:
    """The system's soft limit is 256 and its hard one 4,096: a quarter of what there is stays for models."""
    code = (
        "import resource; from firstword.serving import most_connections;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096));"
        f"print(most_connections({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.split() == [str(kept), str(soft), "4096"]
