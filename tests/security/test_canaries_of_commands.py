"""What commands, wrong settings and printed objects say: never the secret that they hold."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from api_of_a_test import Serve
from canaries import ALL, SAID, SECRETS, environment, found

from firstword import App, ConfigError, Model, Turn
from firstword.admission.grant import Grant
from firstword.platforms import Asked
from firstword.settings import Settings
from firstword.testing import Upstream
from firstword.transport import read_proxy
from firstword.wire import HttpRequest

FIRSTWORD = str(Path(sys.executable).parent / "firstword")


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["serve", "--help"],
        ["check", "--help"],
        ["agent", "--help"],
        ["agent", "status"],
        ["agent", "start"],
        ["check", "--list"],
        ["check", "--quick", "{url}"],
        ["check", "--quick", "--json", "{url}"],
        ["serve", "--host", "127.0.0.1", "--port", "{port}"],
        ["serve", "nothing.py"],
        ["serve", "broken.py"],
    ],
    ids=" ".join,
)
async def test_a_command_says_no_secret(serve: Serve, upstream: Upstream, tmp_path: Path, command: list[str]) -> None:
    """Help shows no values, the doctor not its key, and a server that does not start only why."""
    (tmp_path / "broken.py").write_text(
        "import os\nfrom firstword import App\napp = App(port=os.environ['LLM_API_KEY'])"
    )
    server = serve(App(base_url=upstream.base_url))
    words = [word.format(url=f"{server.url}/chat/completions", port=server.port) for word in command]
    known = {"PATH": os.environ["PATH"], **environment(), "FIRSTWORD_CHECK_KEY": SECRETS["wrong key"]}
    known["HTTPS_PROXY"] = f"http://user:{quote(SECRETS['proxy password'], safe='')}@127.0.0.1:9"
    run = subprocess.run
    done = await asyncio.to_thread(run, [FIRSTWORD, *words], cwd=tmp_path, env=known, capture_output=True, timeout=50)
    output = done.stdout + done.stderr
    assert output and found(output, ALL) == []


def test_no_wrong_setting_says_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key was put into the wrong variable, whichever it is; or has a sign that no header can hold."""
    for field, info in Settings.model_fields.items():
        if field.endswith(("_file", "_dir")):
            continue  # a path is told: which file is missing is what the operator has to know
        name = getattr(info.validation_alias, "choices", [f"FIRSTWORD_{field.upper()}"])[0]
        for text in (
            SECRETS["wrong key"],
            f"{SECRETS['wrong key']} x\u00e9",
            f"http://{SECRETS['wrong key']}",
            f"a:{SECRETS['wrong key']}",
        ):
            with monkeypatch.context() as patch:
                patch.setenv(name, text)
                try:
                    App()
                except ConfigError as error:
                    told = f"{error} {error!r} {error.__cause__!r} {error.detail}"
                    assert found(told.encode(), SECRETS) == [], name


def test_what_holds_a_secret_does_not_print_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody logs an object: the settings, a model, a turn, a request, a grant, a proxy."""
    for name, text in environment().items():
        monkeypatch.setenv(name, text)
    key, words = str(SECRETS["model key"]), str(SAID["prompt"])
    app = App(keys=[SECRETS["keys"]])
    things = [
        app,
        app.settings,
        app.gate,
        Model("m1", api_key=key),
        Grant(key=key),
        read_proxy(f"http://user:{quote(key, safe='')}@proxy.example:1"),
        Turn({"messages": []}, key=key, headers={"authorization": key}, query={"key": key}),
        HttpRequest("POST", "https://x.example/", (("authorization", key),), words.encode()),
        Asked({"a": words}, {"authorization": key}, {"key": key}, "/", key),
    ]
    for thing in things:
        assert found(f"{thing!r} {thing}".encode(), ALL) == [], type(thing)
