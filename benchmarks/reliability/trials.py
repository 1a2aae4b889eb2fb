"""All trials, in the order of the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from hostile import slow
from hostile.attacks import findings
from hostile.front import NGINX

from firstword.server.again import KEPT
from firstword.testing import Upstream

from .. import overload
from ..soak import EARLY, Left, soak_here, soak_process
from . import Row, Trial
from .leases import EVERYBODY, KEYS, LIMITS, MOST_OF_KEY, MOST_OF_SESSION, every_share
from .suite import Proof, runs

TURNS, QUICK_TURNS = 110_000, 5_500
HALF = 0.5  # of the turns, after which memory must be flat: before, the allocator still finds what it needs
DROP = 11  # every so many turns one is abandoned: ten thousand of them beside a hundred thousand
HERE = 0.1  # of the turns are done again in one process, where objects can be counted


async def soak(quick: bool) -> AsyncIterator[Row]:
    """A hundred thousand turns, with every limit on; then some where tasks and objects can be counted."""
    turns = QUICK_TURNS if quick else TURNS
    yield await soaked(turns)
    here = round(turns * HERE)
    tried = f"{here - here // DROP:,} turns and {here // DROP:,} abandoned ones, in one process"
    try:
        found = await soak_here(here, len(EVERYBODY), drop=DROP)
    except Left as left:
        yield Row(tried, str(left), False)
        return
    objects = found["objects after a tenth"], found["objects after all"]
    happened = f"tasks: {found['tasks before and after']} before and after; Python objects: {objects[0]:,} that the "
    yield Row(tried, happened + f"collector knows after a tenth, {objects[1]:,} after all", True)


async def soaked(turns: int) -> Row:
    """Run the turns against a server with every limit on."""
    tried = (
        f"{turns - turns // DROP:,} short turns and {turns // DROP:,} abandoned ones: {len(EVERYBODY)} callers at "
        f"once, each a session of its own, with {len(KEYS)} gate keys; turns, requests and tokens are limited for each "
        "key and each session"
    )
    early, pause = (HALF, KEPT + 1) if turns >= TURNS else (EARLY, 0.0)
    try:
        found = await soak_process(
            turns,
            len(EVERYBODY),
            drop=DROP,
            early=early,
            pause=pause,
            who=EVERYBODY,
            look=every_share,
            **LIMITS,
        )
    except Left as left:
        return Row(tried, str(left), False)
    soon, late = found["memory early (MB)"], found["memory after all (MB)"]
    places = ("before a word", "in mid-answer", "after the last word", "after the end")
    dropped = ", ".join(f"{found[place]:,} {place}" for place in places if place in found)
    happened = (
        f"{found['whole']:,} arrived whole, {found['dropped']:,} were abandoned ({dropped}); "
        f"{found['turns a second']:,} a second. Memory: {soon} MB after {early * 100:.0f} % of them, {late} MB "
        f"after all ({(late / soon - 1) * 100:+.1f} %). Descriptors: {found['descriptors early']}, then "
        f"{found['descriptors after all']}. Turns in progress: 0. Leases: every session could take its "
        f"{MOST_OF_SESSION} turns again, and every key its {MOST_OF_KEY} "
        f"({found['let in at once']} held at the most there may be, "
        f"{found['refused beyond']} beyond refused)"
    )
    refused = found["refused meanwhile"]
    return Row(tried, happened + (f"; {refused} turns were refused meanwhile" if refused else ""), not refused)


async def too_much(quick: bool) -> AsyncIterator[Row]:
    """Five times what there is room for, of both kinds of room."""
    seconds, rounds = (3.0, 1) if quick else (10.0, 3)
    found = await overload.of_turns(seconds, rounds)
    yield overloaded(f"room for {overload.ROOM} turns in progress (`FIRSTWORD_MAX_TURNS`)", found)
    found = await overload.of_the_processor(seconds, rounds)
    burn = overload.BURN * 1000
    yield overloaded(f"each turn burns {burn:.0f} ms of one core (`FIRSTWORD_SHED_AFTER`, as it is)", found)


def overloaded(room: str, found: dict[str, Any]) -> Row:
    """Return the row of an overload."""
    offered = found["storm: let in"] + found["storm: refused"] + found["neither served nor told"]
    happened = (
        f"of {offered:,} turns {found['storm: let in']:,} were let in and {found['storm: refused']:,} refused, after "
        f"{found['refused: p50 (ms)']} ms (median). First word of those let in, p50 / p99: "
        f"{found['storm: p50 (ms)']:,} / {found['storm: p99 (ms)']:,} ms; with half of the room in use "
        f"{found['calm: p50 (ms)']:,} / "
        f"{found['calm: p99 (ms)']:,} ms: x {found['first word, storm/calm, p50']} / "
        f"{found['first word, storm/calm, p99']}. Longest gap between two words that leave the model every "
        f"{overload.EVERY * 1000:.0f} ms, p50: {found['longest gap, storm, p50 (ms)']} ms, "
        f"{found['longest gap, calm, p50 (ms)']} ms in the calm. Neither served nor told: "
        f"{found['neither served nor told']}"
    )
    tried = f"{overload.TIMES:.0f} times the turns that there is room for, each on a connection of its own: {room}"
    return Row(tried, happened, overload.holds(found))


async def hostile(quick: bool) -> AsyncIterator[Row]:
    """All attacks of tests/hostile."""
    with Upstream.start() as upstream:
        async for finding in findings(upstream.base_url):
            yield Row(finding.tried[:1].upper() + finding.tried[1:], finding.happened, finding.stands)
    for name, found in (("slowhttptest", slow.SLOWHTTPTEST), ("nginx", NGINX)):
        if found is None:
            yield Row(f"What needs {name}", "it is not on this machine", None)


DRAINING = "tests/test_draining.py::test_"
STORE, MACHINES = "tests/shared/test_store.py::test_", "tests/shared/test_many_machines.py::test_"
STOPPED = (
    Proof(
        "Rolling restarts under load: two workers, five callers who never stop, SIGHUP twice; everybody hears it all",
        (f"{DRAINING}a_rolling_restart_loses_no_turn",),
    ),
    Proof(
        "A worker is killed while turns are in progress on both: only its own are lost, and it is replaced",
        (
            f"{DRAINING}a_worker_that_is_killed_takes_only_its_own_turns_with_it",
            f"{DRAINING}a_worker_that_cannot_come_back_leaves_the_others_alone",
        ),
    ),
    Proof(
        "SIGTERM: `/ready` says no before anything changes, a kept connection may bring one more turn, running turns "
        "end, those that do not are ended by their policy",
        (
            f"{DRAINING}a_balancer_hears_of_the_end_before_it_comes",
            f"{DRAINING}a_kept_connection_may_bring_one_more_turn_while_the_server_stops",
            "tests/test_cli.py::test_a_running_turn_is_finished_before_the_end",
            "tests/test_cli.py::test_turns_that_do_not_end_are_ended_when_the_drain_is_over",
        ),
    ),
    Proof(
        "A restart with a broken file, a worker more and one less under load",
        (
            f"{DRAINING}a_restart_with_a_broken_file_changes_nothing",
            f"{DRAINING}a_worker_can_be_added_and_taken_away",
        ),
    ),
    Proof(
        "Workers are killed at every step of writing down what they count: nothing is lost or doubled",
        ("tests/test_worker_counts.py",),
    ),
)
STORES = (
    Proof(
        "The store is killed and comes back, with a real redis-server: no turn waits for it, and it is found again",
        (
            f"{STORE}a_store_that_is_killed_is_waited_for_by_nobody",
            f"{STORE}who_asks_when_the_store_dies_is_told_at_once",
            f"{STORE}a_store_that_is_away_at_start_is_found_later",
            f"{MACHINES}nobody_waits_for_a_store_that_is_away",
            f"{MACHINES}a_store_that_is_away_at_start_keeps_nobody_from_serving",
        ),
    ),
    Proof(
        "The store hangs, or is slow, full, read-only, or no store at all: one budget of 5 ms, and then nothing",
        (
            f"{STORE}a_store_that_hangs_costs_one_budget_and_then_nothing",
            f"{STORE}a_store_that_hangs_for_long_is_left_and_found_again",
            f"{STORE}what_is_told_to_a_store_that_hangs_for_a_moment_is_not_lost",
            f"{STORE}a_late_reply_is_not_taken_for_the_next_one",
            f"{STORE}a_slow_store_is_left_alone_until_it_is_quick",
            f"{STORE}a_full_store_is_away",
            f"{STORE}a_replica_that_takes_no_writes_is_away",
            f"{STORE}what_is_no_store_is_away",
        ),
    ),
    Proof(
        "All else that replicas share: limits, leases of a dead replica, newer requests, failing models, images",
        ("tests/shared",),
    ),
)
OTHERS = (
    Proof(
        "Schemathesis against the server's own `/openapi.json`, all checks",
        ("tests/clients/test_schemathesis.py",),
    ),
    Proof(
        "A model that cuts, stalls, lies or floods: at each write, byte, event and wait of a turn",
        (
            "tests/test_faults.py",
            "tests/test_faults_asgi.py",
            "tests/test_faults_heard.py",
            "tests/test_hostile_upstreams.py",
        ),
    ),
    Proof("What other servers of this kind got wrong, one test for each lesson", ("tests/test_failure_modes.py",)),
    Proof(
        "Turns that are sent again in storms, and many callers at once: nobody hears another",
        ("tests/test_again_storms.py", "tests/test_many_callers.py"),
    ),
    Proof(
        "Secrets are planted in every setting, key and turn, and looked for in all that the process writes",
        ("tests/security/test_canaries.py", "tests/security/test_canaries_of_commands.py"),
    ),
)
TRIALS = (
    Trial("soak", "Many turns", soak),
    Trial("overload", "Too many turns", too_much),
    Trial("hostile", "Hostile callers", hostile),
    Trial("stopped", "Stops, restarts and dead workers", runs(STOPPED)),
    Trial("stores", "A store that goes away", runs(STORES)),
    Trial("others", "What the suite tries as well", runs(OTHERS)),
)
