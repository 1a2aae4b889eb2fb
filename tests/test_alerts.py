"""The dashboard and the alert rules ask for what there is: each metric and label in them is one that a page tells.

`promtool` reads and tries the rules where there is one; what is compared with the code needs none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from prometheus_client.parser import text_string_to_metric_families

from firstword.admission import Gate
from firstword.errors import TooManyRequests, Unauthorized
from firstword.telemetry.catalogue import METRICS, Kind
from firstword.telemetry.page import render
from firstword.telemetry.standing import STATES
from firstword.telemetry.tally import BOUNDS, Tally

DASHBOARD = ROOT / "deploy" / "grafana" / "firstword.json"
ALERTS = ROOT / "deploy" / "alerts.yml"
TRIALS = ROOT / "tests" / "alerts.trials.yml"
PAGE = ROOT / "docs" / "metrics.md"

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool: it comes with Prometheus")

TARGET = {"job", "instance"}  # what Prometheus adds to whatever it has read
WORDS = {"by", "without", "and", "or", "unless", "on", "ignoring", "group_left", "group_right", "offset", "bool"}
TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*")|(?P<name>[a-zA-Z_:][\w:]*)|(?P<duration>\[[^\]]*\])"""
    r"""|(?P<number>\d+(?:\.\d+)?(?:[smhdwy]\b)?)|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^(){}=,<>])|(?P<blank>\s+)"""
)


class Asked:
    """What a PromQL expression asks for: `selectors` are metrics with the labels that are matched, `groups` by what."""

    def __init__(self, expression: str) -> None:
        self.selectors: list[tuple[str, dict[str, str]]] = []
        self.groups: set[str] = set()
        self._tokens = list(_tokens(expression))
        self._at = 0
        while self._at < len(self._tokens):
            self._read()

    def _next(self) -> tuple[str, str]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _read(self) -> None:
        kind, text = self._next()
        if kind != "name":
            assert text not in "{}=,", f"{text!r} stands where no label is"
            return
        if text in ("by", "without", "on", "ignoring", "group_left", "group_right"):
            assert self._next()[1] == "("
            while (word := self._next())[1] != ")":
                if word[0] == "name":
                    self.groups.add(word[1])
        elif text not in WORDS and self._peek() not in ("(", "by", "without"):
            self.selectors.append((text, self._matchers()))
        elif text not in WORDS and self._peek() == "(":
            self._at += 1
            self._arguments()

    def _arguments(self) -> None:
        """Read to the bracket that closes; within it are expressions, and commas between them."""
        while self._peek() != ")":
            if self._peek() == ",":
                self._at += 1
            elif self._peek() == "(":
                self._at += 1
                self._arguments()
            else:
                self._read()
        self._at += 1

    def _matchers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self._peek() != "{":
            return found
        self._at += 1
        while self._peek() != "}":
            name, sign, value = self._next(), self._next(), self._next()
            assert (name[0], value[0]) == ("name", "string") and sign[1] in ("=", "!=", "=~", "!~")
            found[name[1]] = value[1][1:-1]
            if self._peek() == ",":
                self._at += 1
        self._at += 1
        return found


def _tokens(expression: str) -> Any:
    at = 0
    while at < len(expression):
        found = TOKEN.match(expression, at)
        assert found and found.lastgroup, f"not understood: {expression[at:]!r}"
        at = found.end()
        if found.lastgroup != "blank":
            yield found.lastgroup, found.group()


def told() -> dict[str, set[str]]:
    """Return the labels of every sample of a page on which there is something of each metric."""
    tally = Tally()
    for name, metric in METRICS.items():
        labels = tuple("x" for _ in metric.labels)
        if metric.kind is Kind.SPREAD:
            tally.spread(name, labels).note(0.1)
        else:
            tally.take({name: {labels: 1.0}})
    _, page = render(tally, pids=[os.getpid()])
    samples = [sample for family in text_string_to_metric_families(page.decode()) for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples}


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def queries() -> list[tuple[str, str]]:
    """Return every expression of both, with what it stands in."""
    shown = [(panel["title"], each["expr"]) for panel in panels() for each in panel.get("targets", [])]
    return shown + [(rule["alert"], rule["expr"]) for rule in rules()]


def plain(expression: str) -> str:
    """Return an expression as Prometheus gets it from Grafana."""
    return re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "5m"))


@pytest.mark.parametrize(("where", "expression"), queries(), ids=lambda text: str(text)[:40])
def test_what_is_asked_for_is_told(where: str, expression: str) -> None:
    """A metric is renamed, or loses a label: else an empty panel, or an alert that never comes, would tell of it."""
    asked, there = Asked(plain(expression)), told()
    assert asked.selectors
    known = set(TARGET)
    for name, matchers in asked.selectors:
        if name == "up":
            continue
        assert name in there, f"{where}: there is no {name}"
        assert set(matchers) <= there[name] | TARGET, f"{where}: {name} has no {set(matchers) - there[name]}"
        known |= there[name]
        if "state" in matchers:
            assert matchers["state"] in STATES
        if "histogram_quantile" in expression:
            assert name.endswith("_bucket") and "le" in asked.groups
    assert asked.groups <= known, f"{where}: nothing has {asked.groups - known}"


def test_what_is_said_of_a_series_stands_in_it() -> None:
    """A legend or a sentence names a label that the expression has added away."""
    for panel in panels():
        for each in panel.get("targets", []):
            named = set(re.findall(r"{{(\w+)}}", each["legendFormat"]))
            assert named <= Asked(plain(each["expr"])).groups, panel["title"]
    for rule in rules():
        asked = Asked(rule["expr"])
        is_added_up = bool(re.search(r"\b(sum|max|count)\b", rule["expr"]))
        known = asked.groups if is_added_up else TARGET
        assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= known, rule["alert"]


def test_every_metric_is_on_the_dashboard() -> None:
    """Somebody adds a metric, and nobody ever sees it."""
    asked = {name for _, each in queries() for name, _ in Asked(plain(each)).selectors}
    bare = {re.sub(r"^firstword_|_(total|bucket|count|sum)$", "", name) for name in asked}
    assert set(METRICS) - {re.sub(r"_total$", "", name) for name in bare} == set()


def test_the_variables_of_the_dashboard_are_there() -> None:
    """A variable that is asked for nothing makes every panel empty."""
    board = json.loads(DASHBOARD.read_text("utf-8"))
    there = told()
    variables = {each["name"]: each for each in board["templating"]["list"]}
    used = set(re.findall(r"\$(?!__|{)(\w+)", " ".join(each for _, each in queries() if "$" in each)))
    used -= {"value", "labels"}
    assert used | {"datasource"} == set(variables)
    for each in variables.values():
        if each["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", each["definition"]).groups()  # type: ignore[union-attr]
            assert label in there[metric] | TARGET
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({panel["id"] for panel in board["panels"]}) == len(places)
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ["What callers hear", "Models and the race", "Tools and the engine", "Limits", "The machine"]


@pytest.mark.parametrize(
    "wrong", ["sum(rate(x{a=b}[5m]))", "sum(x{a})", 'x{"a"}', "x # y", "sum by le (x)", "x{a='1'}", "{a}"]
)
def test_what_is_no_expression_is_found_out(wrong: str) -> None:
    """The reader above must not pass over what it does not understand."""
    with pytest.raises((AssertionError, IndexError)):
        Asked(wrong)


# --- what people are told ---------------------------------------------------------------------------


def test_every_alert_says_what_to_do() -> None:
    """Somebody is woken by it: one sentence on what happened, one on what to do, and a chapter with more."""
    headings = re.findall(r"^### (\w+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [rule["alert"] for rule in rules()] == headings
    for rule in rules():
        told = rule["annotations"]
        assert set(told) == {"summary", "action", "runbook"} and rule["labels"]["severity"] in ("warning", "critical")
        assert told["summary"].endswith(".") and told["action"].endswith(".")
        assert told["runbook"] == f"docs/metrics.md#{rule['alert'].lower()}"


def test_every_metric_has_its_row() -> None:
    """Somebody adds a metric or a label: the page tells what it means, and what to do with it."""
    shown = {
        cells[0].strip("` "): cells
        for line in PAGE.read_text("utf-8").splitlines()
        if line.startswith("| `firstword_") and (cells := [cell.strip() for cell in line.strip("|").split(" | ")])
    }
    outside = {
        f"firstword_{name}" + ("_total" if metric.kind is Kind.COUNTER else ""): metric
        for name, metric in METRICS.items()
    }
    assert list(shown) == list(outside)
    for name, metric in outside.items():
        labels = tuple(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)|: .*?(?=;|$)", "", shown[name][1])))
        assert labels == metric.labels and len(shown[name]) == 4 and all(shown[name]), name


def test_the_bounds_stand_on_the_page() -> None:
    """Whoever writes an expression of their own has to know them."""
    assert ", ".join(f"{bound:g}" for bound in BOUNDS) in PAGE.read_text("utf-8")


def test_a_guess_is_counted_where_the_alert_looks() -> None:
    """One address guesses, and is soon told to wait: both are what the rule adds up, and a missing key is not."""
    [rule] = [rule for rule in rules() if rule["alert"] == "FirstwordKeysGuessed"]
    [(name, matchers)] = Asked(rule["expr"]).selectors
    assert name == "firstword_gate_refused_total"
    gate = Gate(["a-key"], holds_key=True, open_to_all=False)
    for headers in [{"authorization": "Bearer guess"}] * 15 + [{}] * 2:
        with pytest.raises((Unauthorized, TooManyRequests)):
            gate.admit(headers, ("192.0.2.1", 1))
    counted = {reason: count for reason, count in gate.refused.items() if re.fullmatch(matchers["reason"], reason)}
    assert counted == {"wrong_key": 10, "too_many": 5} and gate.refused["no_key"] == 2


# --- Prometheus' own word ---------------------------------------------------------------------------


def promtool(*words: str, folder: Path) -> None:
    done = subprocess.run([str(PROMTOOL), *words], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_every_expression(tmp_path: Path) -> None:
    """The rules as they are, and the dashboard's expressions as if they were rules."""
    records = [{"record": f"panel:{number}", "expr": plain(each)} for number, (_, each) in enumerate(queries())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    promtool("check", "rules", str(ALERTS), str(tmp_path / "panels.yml"), folder=tmp_path)


@needs_promtool
def test_the_alerts_come_when_they_should_and_only_then() -> None:
    """Series as they would be seen, and what is told of them and when: `alerts.trials.yml`."""
    promtool("test", "rules", str(TRIALS), folder=TRIALS.parent)
