"""The servers that are measured: one entry each.

Rules: an entry is all there is to say of a server; how it is started and found ready is the same for all (`running`).
A server that is not part of this project is measured when the user has installed it: its program is on the PATH, or
where the variable BENCH_NAME says. Nothing is installed for the user.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .instruments import FOLDER, missing_tls


@dataclass(frozen=True)
class Server:
    """How to run one server.

    Words that are filled in, in `command`, `environment`, `headers` and the text of `config`: {port}, where it listens;
    {scheme} and {upstream}, its model's `http` or `https` and `host:port`; {program}, what `find_program` found;
    {config}, the file `config` of this folder, filled in; {root}, the certificate that vouches for a TLS upstream.
    """

    name: str
    about: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    headers: str = ""  # more lines of every request's head, each with its line break
    packages: tuple[str, ...] = ()  # of this Python, whose versions the report names
    program: str = ""  # what the user must have installed
    version: tuple[str, ...] = ()  # the command that prints the program's version
    config: str = ""
    tls: bool = False  # whether its upstream speaks TLS
    cores: int = 1
    module: str = ""  # the package whose import is timed
    usual: bool = True  # False: measured only when it is asked for by name


FIRSTWORD = Server(
    name="firstword",
    about="this project, as `firstword serve` runs it by default",
    command=(sys.executable, "-m", "firstword", "serve", str(FOLDER / "app.py"), "--port", "{port}"),
    environment={"LLM_BASE_URL": "{scheme}://{upstream}/v1", "SSL_CERT_FILE": "{root}"},
    packages=("firstword", "uvicorn", "uvloop", "httptools", "msgspec"),
    module="firstword",
)
NGINX = Server(
    name="nginx",
    about="nginx as a plain proxy, one worker, kept connections, no buffering: the limit of what a proxy can do",
    command=("{program}", "-c", "{config}"),
    program="nginx",
    version=("{program}", "-v"),
    config="nginx.conf",
)

SERVERS = {
    server.name: server
    for server in (
        Server(name="direct", about="no server: the load generator asks the mock upstream itself"),
        NGINX,
        FIRSTWORD,
        replace(
            FIRSTWORD,
            name="firstword-full",
            about="the same with gate keys, and hooks before a turn, on the text of every chunk, and after it",
            command=(sys.executable, "-m", "firstword", "serve", str(FOLDER / "full.py"), "--port", "{port}"),
            module="",
        ),
        replace(
            FIRSTWORD,
            name="firstword-2",
            about="the same with two workers, on two cores",
            command=(*FIRSTWORD.command, "--workers", "2"),
            cores=2,
            module="",
        ),
        replace(
            NGINX,
            name="nginx-tls",
            about="nginx, its upstream behind TLS: certificate verified, sessions reused",
            tls=True,
        ),
        replace(FIRSTWORD, name="firstword-tls", about="firstword, its upstream behind TLS", tls=True, module=""),
        Server(
            name="plain",
            about="this project under uvicorn's own HTTP protocol",
            command=(sys.executable, str(FOLDER / "plain.py"), "{port}"),
            environment=FIRSTWORD.environment,
            packages=FIRSTWORD.packages,
            usual=False,
        ),
        Server(
            name="naive",
            about="FastAPI + the openai SDK, a new client for every turn",
            command=(sys.executable, str(FOLDER / "naive.py"), "{port}"),
            environment={"LLM_BASE_URL": "{scheme}://{upstream}/v1"},
            packages=("fastapi", "openai", "uvicorn"),
        ),
        Server(
            name="litellm",
            about="LiteLLM's proxy, its default configuration, one worker",
            command=("{program}", "--config", "{config}", "--port", "{port}", "--num_workers", "1"),
            environment={
                "HOST": "127.0.0.1",
                "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # it does not start without a key else
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no download at start
            },
            program="litellm",
            version=("{program}", "--version"),
            config="litellm.yaml",
        ),
        Server(
            name="portkey",
            about="Portkey's gateway on node",
            command=("node", "{program}", "--port={port}", "--headless"),
            headers="x-portkey-provider: openai\r\nx-portkey-custom-host: {scheme}://{upstream}/v1\r\n",
            program="portkey",
            version=("node", "-p", "require(require('path').join('{program}', '../../package.json')).version"),
        ),
    )
}


def variable(server: Server) -> str:
    """Return the environment variable that may say where the server's program is."""
    return f"BENCH_{server.program.upper()}"


def find_program(server: Server) -> str | None:
    """Return the path of the program that the server is: as its variable says, else from the PATH."""
    named = os.environ.get(variable(server))
    if named:
        return str(Path(named).resolve()) if Path(named).is_file() else None
    return shutil.which(server.program)


def lacks(server: Server) -> str | None:
    """Say in one line what keeps `server` from being run here; None if nothing does."""
    if server.program and find_program(server) is None:
        return f"{server.program} was not found: install it, or say where it is in {variable(server)}"
    return missing_tls() if server.tls else None


def program_version(server: Server) -> str:
    """Return the version of the server's program: the first number with points in what it prints."""
    command = [word.replace("{program}", find_program(server) or "") for word in server.version]
    environment = os.environ | dict(server.environment)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    except (OSError, subprocess.SubprocessError):
        return "of unknown version"
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found.group() if found else "of unknown version"
