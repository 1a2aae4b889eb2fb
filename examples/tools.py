"""Tools that run in the server: one looks something up, one books it, once a turn however often the turn is sent."""

from __future__ import annotations

from typing import Literal

from firstword import App, ToolError, Turn

app = App(fillers=["One moment. "])
FREE = {"friday": [19, 21], "saturday": [18]}
booked: list[tuple[str, int, str]] = []


@app.tool(filler="Let me look at the book. ")
async def free_tables(day: Literal["friday", "saturday"]) -> list[int]:
    """Say at which hours there is a table.

    Args:
        day: the day that the caller wants to come.
    """
    return [hour for hour in FREE[day] if all((day, hour) != taken[:2] for taken in booked)]


@app.tool(commits=True)
async def book(day: Literal["friday", "saturday"], hour: int, turn: Turn) -> str:
    """Book a table, after the caller has agreed to the day and the hour."""
    if hour not in await free_tables(day):
        raise ToolError("There is no table at that hour.", hint="Look for another one.")
    booked.append((day, hour, turn.user or "somebody"))
    return f"A table is booked for {day} at {hour}."


if __name__ == "__main__":
    app.run()
