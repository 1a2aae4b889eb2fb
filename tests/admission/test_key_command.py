"""`firstword key`: a key is printed once, its line stands in the file, a URL is signed; all by the command itself."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import typer
from conftest import ROOT

from firstword.admission.keys import KeyFile, digest, is_made, read_keys
from firstword.admission.urls import SignedURLs
from firstword.cli import cli

SECRET = "a-secret-for-urls-of-at-least-thirty-two-bytes"


def key(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `firstword key ...` in a folder."""
    command = [sys.executable, "-m", "firstword", "key", *arguments]
    more = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=more, capture_output=True, text=True, timeout=30)


def test_a_new_key_is_printed_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    """The output is the key and nothing else, for scripts; the file is its owner's to read."""
    made = key(tmp_path, "new", "shop", "--file", "keys", "--requests", "60", "--models", "m1,m2")
    path = tmp_path / "keys"
    [secret], text = made.stdout.split(), path.read_text()

    assert made.returncode == 0 and is_made(secret)
    assert secret not in text and secret not in made.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [(hashed, grant)] = read_keys(text, "keys").items()
    assert (hashed, grant.name, grant.models) == (digest(secret), "shop", {"m1", "m2"})
    assert grant.allowance.requests == 60
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


def test_without_a_file_the_line_is_shown(tmp_path: Path) -> None:
    """For a file that is kept elsewhere, as in git."""
    made = key(tmp_path, "new", "shop", "--budget", "2.5")
    line = next(each for each in made.stderr.splitlines() if each.startswith("shop "))

    assert list(read_keys(line, "line")) == [digest(made.stdout.strip())]
    assert list(tmp_path.iterdir()) == []


def test_what_stood_in_the_file_stays(tmp_path: Path) -> None:
    """Comments, a line without its end, the mode of the file, and the link that leads to it."""
    path = tmp_path / "real"
    path.write_text("# ours\nother sha256:" + "0" * 64)
    path.chmod(0o640)
    (tmp_path / "keys").symlink_to(path)
    made = key(tmp_path, "new", "shop", FIRSTWORD_KEYS_FILE="keys")

    assert made.returncode == 0 and (tmp_path / "keys").is_symlink()
    assert path.read_text().startswith("# ours\nother sha256:" + "0" * 64 + "\nshop sha256:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_keys_are_listed_without_their_hashes_and_revoked_by_name(tmp_path: Path) -> None:
    """Of a client with two keys both; a comment that names it stays."""
    (tmp_path / "keys").write_text("# shop is ours\n")
    for name, *more in (("shop",), ("shop",), ("desk", "--concurrent", "5", "--models", "b,a")):
        assert key(tmp_path, "new", name, *more, "--file", "keys").returncode == 0
    listed = key(tmp_path, "list", "--file", "keys")
    assert listed.stdout.splitlines() == ["desk concurrent=5 models=a,b", "shop", "shop"]

    assert key(tmp_path, "revoke", "shop", "--file", "keys").returncode == 0
    assert [grant.name for grant in KeyFile(tmp_path / "keys").grants.values()] == ["desk"]
    assert (tmp_path / "keys").read_text().startswith("# shop is ours\ndesk ")
    again = key(tmp_path, "revoke", "shop", "--file", "keys")
    assert again.returncode == 1 and "There is no 'shop'" in again.stderr and "hint:" in again.stderr


def test_a_file_that_an_editor_gave_a_mark_can_be_changed(tmp_path: Path) -> None:
    """Notepad writes a mark of UTF-8 first, which the server passes over."""
    (tmp_path / "keys").write_text("# ours\n", encoding="utf-8-sig")

    assert key(tmp_path, "new", "shop", "--file", "keys").returncode == 0
    assert key(tmp_path, "revoke", "shop", "--file", "keys").returncode == 0
    assert not KeyFile(tmp_path / "keys").grants


def test_two_commands_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    """Two people, or a script that makes many."""
    with ThreadPoolExecutor(5) as several:
        made = list(several.map(lambda number: key(tmp_path, "new", f"client-{number}", "--file", "keys"), range(5)))

    assert [each.returncode for each in made] == [0] * 5
    assert set(KeyFile(tmp_path / "keys").grants) == {digest(each.stdout.strip()) for each in made}


@pytest.mark.parametrize(
    "arguments",
    [
        ["new", "bad name", "--file", "keys"],
        ["new", "shop", "--requests", "many", "--file", "keys"],
        ["new", "shop", "--models", "a, b", "--file", "keys"],
        ["new", "shop", "--file", "nowhere/keys"],
        ["list"],
        ["list", "--file", "nowhere"],
        ["sign", "https://voice.example", "call-7"],
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_told_in_a_sentence(tmp_path: Path, arguments: list[str]) -> None:
    """No traceback, nothing written, and no key printed that would be good for nothing."""
    ran = key(tmp_path, *arguments)

    assert ran.returncode == 1 and ran.stdout == ""
    assert ran.stderr.startswith("firstword: ") and "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_understood_is_not_changed(tmp_path: Path) -> None:
    """Half a line, or another file by mistake: it would be lost."""
    (tmp_path / "keys").write_text("something else\n")
    for arguments in (["new", "shop"], ["revoke", "something"]):
        ran = key(tmp_path, *arguments, "--file", "keys")
        assert ran.returncode == 1 and "line 1" in ran.stderr

    assert (tmp_path / "keys").read_text() == "something else\n"
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


def test_a_url_is_signed(tmp_path: Path) -> None:
    """The output is the URL and nothing else, for a script that sends it to an engine."""
    more = ["--client", "shop", "--valid-for", "60"]
    ran = key(tmp_path, "sign", "https://voice.example/agora", "call 7", *more, FIRSTWORD_URL_SECRET=SECRET)
    parts = urlsplit(ran.stdout.strip())

    assert (ran.returncode, parts.path) == (0, "/agora/s/call%207/chat/completions")
    assert SignedURLs([SECRET]).check(dict(parse_qsl(parts.query)), "call 7") == "shop"


def test_every_command_and_option_is_in_the_guide() -> None:
    """Somebody adds one."""
    commands = typer.main.get_command(cli).commands["key"].commands  # type: ignore[attr-defined]
    text = (ROOT / "docs" / "access.md").read_text("utf-8")
    options = {option for each in commands.values() for param in each.params for option in param.opts}

    assert [name for name in commands if f"| `firstword key {name}" not in text] == []
    assert [option for option in sorted(options) if option.startswith("--") and f"`{option}" not in text] == []
