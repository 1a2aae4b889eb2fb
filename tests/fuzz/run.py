"""Fuzz one target, or all of them, for a bounded time: `python tests/fuzz/run.py SECONDS [TARGET]`.

Rules:
- One process a target, because a fuzzer ends with its process. An input that breaks a promise is printed and kept.
- What was found stays in .hypothesis/fuzz/TARGET, and the next run begins there.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / ".hypothesis" / "fuzz"  # what no commit holds and `make clean` removes
LONGEST = 4096  # bytes of an input; what grows beyond is a matter of tests/test_fuzz_reply.py
TOO_LONG = 5  # seconds for one input; with so few bytes that is a hang


def fuzz(name: str, seconds: int) -> None:
    """Fuzz the target `name` in this process, which atheris then ends."""
    atheris: Any = importlib.import_module("atheris")
    sys.path[:0] = [str(ROOT / "tests")]
    with atheris.instrument_imports(include=["firstword", "feeding"]):
        from fuzz import targets
    target = getattr(targets, name)
    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.SEEDS[target]):
        (kept / f"seed-{number}").write_bytes(seed)

    def one_input(data: bytes) -> None:
        if data:
            target(data)

    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={TOO_LONG}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={KEPT}/broken-{name}-", str(kept)], one_input)
    atheris.Fuzz()


def main() -> None:
    """Fuzz the targets that are asked for, one after the other."""
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit(
            "fuzz: atheris is not here\nhint: use CPython 3.11 to 3.14 on Linux and x86-64, and `make fuzz`"
        )
    seconds, names = int(sys.argv[1]), sys.argv[2:]
    if len(names) == 1:
        fuzz(names[0], seconds)
        return
    failed = []
    for name in names or ["response", "reply", "request"]:
        print(f"fuzz: {name}, {seconds} seconds", flush=True)
        if subprocess.run([sys.executable, __file__, str(seconds), name], check=False).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"fuzz: broken: {', '.join(failed)}\nhint: the input is printed above, and kept in {KEPT}")


if __name__ == "__main__":
    main()
