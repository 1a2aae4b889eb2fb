"""Has the doctor examine a naive server and firstword, before the same model, and prints the difference: `make doctor`.

The table of the READMEs is this one, and `test_compared.py` holds them together; `--write` puts it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from served import Served  # noqa: E402

from firstword import App, Turn, clock  # noqa: E402
from firstword.doctor import CHECKS, Examination, Level, Patient, chosen, examine  # noqa: E402
from firstword.errors import BadRequest  # noqa: E402

KEY = "a-key-for-the-doctor"
READMES = [ROOT / "README.md", ROOT / "README-CN.md"]
PAGE = ROOT / "docs" / "check.md"
BEGIN, END = "<!-- made by `make doctor` -->", "<!-- end -->"
LEVELS = (Level.ERROR, Level.WARNING, Level.ADVICE)
# What a busy machine has a say in, and what is true of any server on this machine.
LEFT_OUT = ("pace", "at-once", "abandoned")
HERE = "private-address"
START_TIMEOUT = 30.0  # seconds; the naive server imports a lot


def model() -> App:
    """Return the model behind both: the demo, quick, and behind a key as a provider's is."""
    app = App(models=["demo"], keys=[KEY])

    @app.before_turn
    def hurry(turn: Turn) -> None:
        turn.request["pace"] = 0

    @app.before_turn
    def be_strict(turn: Turn) -> None:
        for message in turn.messages:
            if wrong := mistake(message):
                raise BadRequest(wrong, param="messages")

    return app


def mistake(message: dict[str, Any]) -> str:
    """Return what OpenAI's API refuses a message for; empty when it does not."""
    if unknown := set(message) - {"role", "content", "name", "tool_calls", "tool_call_id", "refusal"}:
        return f"Additional properties are not allowed: {sorted(unknown)[0]}."
    if message.get("role") == "tool" and "tool_call_id" not in message:
        return "A message of the role tool needs a tool_call_id."
    if message.get("role") == "assistant" and not message.get("content") and not message.get("tool_calls"):
        return "A message of the assistant needs content or tool_calls."
    parts = message["content"] if isinstance(message.get("content"), list) else []
    if any(part.get("type") not in ("text", "image_url") for part in parts):
        return "A part is of a type that is not known."
    return ""


@contextlib.contextmanager
def firstword(base_url: str) -> Iterator[str]:
    """Serve firstword in front of a model; its URL."""
    served = Served(App(base_url=base_url, model="m1"))
    try:
        yield f"{served.url}/chat/completions"
    finally:
        served.stop()


@contextlib.contextmanager
def naive(base_url: str) -> Iterator[str]:
    """Serve the naive server of the benchmarks in front of a model; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "naive.py"), str(port)],
        env={**os.environ, "LLM_BASE_URL": base_url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/v1/chat/completions"
    finally:
        process.kill()
        process.wait(10)


async def listens(url: str) -> None:
    """Wait until a server listens."""
    host, port = url.split("/")[2].split(":")
    async with clock.timeout(START_TIMEOUT):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
            await asyncio.sleep(0.05)


async def examined(url: str) -> Examination:
    """Examine one server, but for what depends on how busy the machine is."""
    await listens(url)
    names = [check.name for check in CHECKS if check.name not in LEFT_OUT]
    return await examine(Patient(url, key=KEY, model="m1"), chosen(names))


async def both() -> tuple[Examination, Examination]:
    """Examine firstword and the naive server before the same model."""
    behind = Served(model())
    try:
        with firstword(f"{behind.url}/v1") as ours, naive(f"{behind.url}/v1") as theirs:
            return await examined(ours), await examined(theirs)
    finally:
        behind.stop()


def faults(found: Examination) -> dict[str, Level]:
    """Return what is wrong, and how bad it is."""
    return {each.fault.says: each.level for each in found.findings if each.fault and each.fault.name != HERE}


def table(ours: Examination, theirs: Examination) -> str:
    """Return the table of the READMEs: what was found at either, the worst first."""
    mine, other = faults(ours), faults(theirs)
    lines = ["| `firstword check` finds | naive server | firstword |", "|---|---|---|"]
    for level in LEVELS:
        for says in dict.fromkeys([*other, *mine]):
            if level in (other.get(says), mine.get(says)):
                lines.append(f"| {says} | {other.get(says, '–')} | {mine.get(says, '–')} |")
    return "\n".join(lines)


def page() -> str:
    """Return the list of docs/check.md: every check, and every fault with its reason and its mend."""
    lines = []
    for check in CHECKS:
        quick = ", also with `--quick`" if check.is_quick else ""
        many = "1 request" if check.requests == 1 else f"{check.requests} requests"
        lines += [f"### {check.name}", "", f"{check.tries[0].upper()}{check.tries[1:]}; {many}{quick}.", ""]
        for fault in check.faults:
            lines.append(f"- **`{fault.name}`** ({fault.level}): {fault.says} {fault.why} *Mend:* {fault.mend}")
        lines += [""] if check.faults else []
    return "\n".join(lines).strip()


def within(path: Path) -> str:
    """Return what stands in a page between the marks."""
    return path.read_text("utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def put(path: Path, made: str) -> None:
    """Put something between the marks of a page."""
    head, _, rest = path.read_text("utf-8").partition(BEGIN)
    path.write_text(f"{head}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}", "utf-8")


def main() -> None:
    """Print the table; with `--write`, put it into the READMEs, and the list of the checks into its page."""
    logging.getLogger("firstword").addHandler(logging.NullHandler())
    made = table(*asyncio.run(both()))
    if "--write" in sys.argv:
        put(PAGE, page())
        for readme in READMES:
            put(readme, made)
    print(made)


if __name__ == "__main__":
    main()
