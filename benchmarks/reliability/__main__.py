"""The command: `python -m benchmarks.reliability [--quick] [--only soak,overload] [--write]`."""

from __future__ import annotations

import argparse
import asyncio
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


def machine() -> str:
    """Return where and when it was tried."""
    told = describe([])
    what = ", ".join([f"{told['cores']} cores of {told['CPU']}", told["memory"], told["kernel"], told["Python"]])
    return f"Tried on {date.today().isoformat()} on {what}; {told['commit']}."


def main() -> None:
    """Run the trials; end with 1 when something did not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns, and a shorter overload")
    parser.add_argument("--only", default="", help=", ".join(trial.name for trial in TRIALS))
    parser.add_argument("--write", action="store_true", help=f"keep the tables in docs/{PAGE.name}")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else [trial.name for trial in TRIALS]
    unknown = set(names) - {trial.name for trial in TRIALS}
    if unknown or (options.write and (options.quick or options.only)):
        said = f"there is no trial {', '.join(sorted(unknown))}" if unknown else "the page holds a whole run"
        raise SystemExit(f"reliability: {said}\nhint: see --help")
    if not PROC.joinpath("self/statm").exists():
        raise SystemExit("reliability: needs Linux's account of memory and files (/proc)\nhint: run it in a container")
    began = time.monotonic()
    where = machine()
    found = {trial.title: asyncio.run(tried(trial, options.quick)) for trial in TRIALS if trial.name in names}
    rows = [row for each in found.values() for row in each]
    not_held = sum(row.held is False for row in rows)
    taken = f"{(time.monotonic() - began) / 60:.0f} minutes"
    print(f"\n{len(rows)} rows in {taken}; {not_held} did not hold")
    if options.write:
        made = "\n\n".join([f"{where} It took {taken}.", *(table(title, each) for title, each in found.items())])
        PAGE.write_text(written(PAGE.read_text("utf-8"), made), "utf-8")
    raise SystemExit(1 if not_held else 0)


if __name__ == "__main__":
    main()
