"""The command: `python -m benchmarks.reliability [--quick] [--only soak,overload] [--write]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from datetime import date

from ..machine import PROC, describe
from . import PAGE, ROOT, Row, Trial, table, written

sys.path.insert(0, str(ROOT / "tests"))  # what the suite has: the attacks

from .trials import TRIALS


async def tried(trial: Trial, quick: bool) -> list[Row]:
    """Run a trial, and print its rows as they end."""
    print(f"\n{trial.title}", flush=True)
    rows = []
    async for row in trial.run(quick):
        rows.append(row)
        print(f"  {row.told.strip('*'):<10}{row.tried}: {row.happened}", flush=True)
    return rows


def where(seconds: float) -> str:
    """Return where and when it was tried, and how long that took."""
    told = describe([])
    machine = ", ".join([f"{told['cores']} cores of {told['CPU']}", told["memory"], told["kernel"], told["Python"]])
    busy = f"load {os.getloadavg()[0]:.1f} at the end"
    return f"Tried on {date.today().isoformat()} on {machine}; {busy}; it took {seconds / 60:.1f} minutes."


def main() -> None:
    """Run the trials; end with 1 when something did not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns, and a shorter overload")
    parser.add_argument("--only", default="", help=", ".join(trial.name for trial in TRIALS))
    parser.add_argument("--write", action="store_true", help=f"keep the tables in docs/{PAGE.name}")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else [trial.name for trial in TRIALS]
    unknown = set(names) - {trial.name for trial in TRIALS}
    if unknown or (options.write and options.quick):
        said = f"there is no trial {', '.join(sorted(unknown))}" if unknown else "the page holds whole trials"
        raise SystemExit(f"reliability: {said}\nhint: see --help")
    if not PROC.joinpath("self/statm").exists():
        raise SystemExit("reliability: needs Linux's account of memory and files (/proc)\nhint: run it in a container")
    failed = 0
    for trial in TRIALS:
        if trial.name not in names:
            continue
        began = time.monotonic()
        rows = asyncio.run(tried(trial, options.quick))
        failed += sum(row.held is False for row in rows)
        if options.write:
            made = {trial.title: table(trial.title, rows, where(time.monotonic() - began))}
            PAGE.write_text(written(PAGE.read_text("utf-8"), made, [each.title for each in TRIALS]), "utf-8")
    print(f"\n{failed} did not hold" if failed else "\nall of it held")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
