"""What comes in and what goes out: locks that are fresh and hashed, licences, what a release consists of, workflows."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from shipped import TOOLS, check, needs_tools

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
WORKFLOWS_FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(WORKFLOWS_FOLDER.glob("*.yml"))
EACH = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
OWN = {f"./.github/workflows/{path.name}" for path in WORKFLOWS}
EXTRAS = re.findall(r"^IMAGE_EXTRAS =(.*)$", MAKEFILE, re.MULTILINE)[0].split()


def locked(text: str) -> dict[str, str]:
    """Return the versions of a lock file by name; of several, for one Python each, the last."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


@needs_tools
def test_the_lock_files_are_those_of_uv_lock() -> None:
    """uv.lock is changed, and the files that are installed from are forgotten."""
    lines = re.findall(r"uv export (.+) -o (\S+)$", MAKEFILE, re.MULTILINE)
    assert {file for _, file in lines} >= {"locks/serve.txt", "locks/image.txt", "locks/dev.txt", "requirements.txt"}
    for options, file in lines:
        options = options.replace("$(IMAGE_EXTRAS:%=--extra %)", " ".join(f"--extra {name}" for name in EXTRAS))
        told = check(TOOLS / "uv", "export", "--frozen", *shlex.split(options))
        kept = (ROOT / file).read_text("utf-8")
        assert [line for line in told.splitlines() if not line.startswith("#")] == [
            line for line in kept.splitlines() if not line.startswith("#")
        ], f"{file} is not what uv.lock says: make lock"


@pytest.mark.parametrize("path", sorted((ROOT / "locks").glob("*.txt")), ids=lambda path: path.name)
def test_every_package_has_a_hash(path: Path) -> None:
    """One without is whatever the registry gives on that day."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^ *#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE))
    wrong = [entry.split()[0] for entry in entries if entry.strip() and "--hash=sha256:" not in entry]
    assert entries and wrong == []


def test_the_image_has_what_the_server_has_in_the_same_versions() -> None:
    """An image is built of another set than the tests ran with."""
    image, serve = (locked((ROOT / "locks" / f"{name}.txt").read_text("utf-8")) for name in ("image", "serve"))
    dev = locked((ROOT / "locks" / "dev.txt").read_text("utf-8"))
    assert serve.items() <= image.items() and image.items() <= {**dev, **serve}.items()
    assert "COPY locks/image.txt" in (ROOT / "Dockerfile").read_text("utf-8")


@needs_tools
def test_a_licence_that_is_not_on_the_list_is_found() -> None:
    """The tool that `make licences` trusts, on its own environment, with the shipped list less one."""
    allowed = [line for line in (ROOT / "locks/licences.allowed").read_text("utf-8").splitlines() if line[0] != "#"]
    assert len(allowed) > 10 and not [line for line in allowed if re.search("GPL|UNKNOWN|SSPL|BUSL", line)]
    without = ";".join(line for line in allowed if not line.startswith("MIT"))
    with pytest.raises(AssertionError, match="not in allow-only licenses was found"):
        check(TOOLS / "pip-licenses", "--python", TOOLS / "python", "--from", "mixed", "--allow-only", without)


@needs_tools
def test_the_list_of_what_is_in_it_is_whole_and_always_the_same(tmp_path: Path) -> None:
    """An auditor compares two releases: what differs is what was changed."""
    told = check(TOOLS / "uv", "export", "--quiet", "--frozen", "--no-default-groups", "--no-emit-project")
    command = re.findall(r"^SBOM = \$\(SHIPPING\)/(.+)$", MAKEFILE, re.MULTILINE)[0]
    made = []
    for name in ("one", "two"):
        check(TOOLS / command.split()[0], *command.split()[1:], "-o", tmp_path / name, stdin=told)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    bill: dict[str, Any] = json.loads(made[0])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "firstword"
    listed = {each["name"]: each for each in bill["components"]}
    wanted = locked((ROOT / "locks" / "serve.txt").read_text("utf-8"))
    assert set(listed) == set(wanted) - {"flit-core"}
    for name, each in listed.items():
        assert each["purl"] == f"pkg:pypi/{name}@{each['version']}"
        hashes = {one["content"] for place in each["externalReferences"] for one in place["hashes"]}
        assert hashes and all(re.fullmatch(r"[0-9a-f]{64}", one) for one in hashes)


# --- the workflows --------------------------------------------------------------------------------


def jobs(path: Path) -> dict[str, Any]:
    """Return the jobs of a workflow."""
    return dict(yaml.safe_load(path.read_text("utf-8"))["jobs"])


@EACH
def test_a_workflow_runs_what_it_names_and_may_do_no_more_than_it_says(path: Path) -> None:
    """An action's tag can be moved to other code; a token without bounds can do what its repository can."""
    text = path.read_text("utf-8")
    used = [each for each in re.findall(r"uses: (.+)$", text, re.MULTILINE) if each.split()[0] not in OWN]
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)] == []
    whole = yaml.safe_load(text)
    assert whole["permissions"] == {} and whole["concurrency"]
    assert "pull_request_target" not in text and "secrets." not in text and "workflow_run" not in text
    for name, job in jobs(path).items():
        assert isinstance(job["permissions"], dict), name
        if job.get("uses") in OWN:  # its jobs are looked at where they stand
            continue
        assert 0 < job["timeout-minutes"] <= 60, name
        for step in job["steps"]:
            if "actions/checkout@" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_an_action_is_of_one_version_everywhere() -> None:
    """Half of the files are brought up to date."""
    texts = "".join(path.read_text("utf-8") for path in WORKFLOWS)
    used = set(re.findall(r"uses: ([^@]+)@(.+)$", texts, re.MULTILINE))
    assert len({name for name, _ in used}) == len(used)


def test_what_can_publish_runs_nothing_of_others() -> None:
    """A package that is installed while a token is at hand takes the token with it."""
    release = jobs(ROOT / ".github" / "workflows" / "release.yml")
    assert release["checks"]["uses"] == "./.github/workflows/ci.yml"
    publishing = {name for name, job in release.items() if set(job["permissions"].values()) & {"write"}}
    assert publishing == {"pypi", "ghcr"}
    for name in publishing:
        assert release[name]["environment"] == name  # somebody approves
        assert {"checks", "build", "image"} <= set(release[name]["needs"])
        for step in release[name]["steps"]:
            assert "actions/checkout" not in step.get("uses", "")
            assert not re.search(r"\b(pip|make|npm|python|docker build)\b", step.get("run", ""))
    others = [path for path in WORKFLOWS if path.name != "release.yml"]
    assert all(job["permissions"] == {"contents": "read"} for path in others for job in jobs(path).values())


def test_every_make_target_of_a_workflow_exists() -> None:
    """A target is renamed."""
    for path in WORKFLOWS:
        for line in re.findall(r"run: (?:env -u CI )?make (.+)$", path.read_text("utf-8"), re.MULTILINE):
            for target in (word for word in shlex.split(line) if "=" not in word):
                assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_each_python_that_is_promised_is_tested() -> None:
    """A Python is added to the promise, or the oldest is dropped; or `.ci/run` has another Python than it needs."""
    parts = jobs(WORKFLOWS_FOLDER / "ci.yml")
    [whole] = [
        step["with"]["python-version"].split() for step in parts["everything"]["steps"] if "setup-python" in str(step)
    ]
    promised = re.findall(r'requires-python = ">=(\d\.\d+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    oldest, newest, usual = whole
    assert [oldest] == promised and usual in json.loads((ROOT / "benchmarks" / "cost.json").read_text("utf-8"))
    assert {*whole, *parts["tests"]["strategy"]["matrix"]["python"]} == {f"3.{minor}" for minor in range(10, 15)}
    assert newest == "3.14"


def test_ci_asks_of_a_machine_what_is_put_on_it() -> None:
    """GitHub sets CI, and then a test without its real part fails: `.ci/run` alone, which installs them, may see it."""
    texts = {path.name: path.read_text("utf-8") for path in WORKFLOWS}
    [whole] = [step for step in jobs(WORKFLOWS_FOLDER / "ci.yml")["everything"]["steps"] if ".ci/run" in str(step)]
    assert re.match(
        r'sudo env "PATH=\$PATH" .*\.ci/run$', whole["run"]
    )  # apt-get is root's, and sudo has a PATH of its own
    tested = [line for text in texts.values() for line in re.findall(r"run: .*\bmake .*$", text, re.MULTILINE)]
    tested = [line for line in tested if re.search(r"make (\w+ )*(test|check)\b", line)]
    assert tested and [line for line in tested if not line.startswith("run: env -u CI make test")] == []
    assert "apt-get" in (ROOT / ".ci" / "run").read_text("utf-8")


@needs_tools
def test_zizmor_finds_nothing() -> None:
    """What it knows of workflows that were broken into."""
    check(TOOLS / "zizmor", "--offline", "--persona", "pedantic", "--no-progress", ".github")


def test_dependabot_waits_a_week() -> None:
    """Most bad releases are found within days."""
    told = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text("utf-8"))
    assert {each["package-ecosystem"] for each in told["updates"]} == {"github-actions", "docker", "docker-compose"}
    assert all(each["cooldown"]["default-days"] >= 7 for each in told["updates"])
    assert 'exclude-newer = "7 days"' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_the_base_image_is_named_once_and_by_its_digest() -> None:
    """A tag is another image tomorrow."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    first, *others = re.findall(r"^FROM (.+)$", text, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64} AS python", first)
    assert [each.split()[0] for each in others] == ["python", "python"]


@needs_tools
def test_hadolint_finds_nothing() -> None:
    """What it knows of Dockerfiles."""
    check(TOOLS / "hadolint", "Dockerfile")


def test_nothing_enters_a_build_but_what_the_dockerfile_takes() -> None:
    """A key in a file beside it is sent to the builder, and may end in a layer."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"]
    taken = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert sorted(kept) == sorted(" ".join(taken).split())
    assert all((ROOT / name).exists() for name in kept)
    assert (ROOT / ".dockerignore").read_text("utf-8").splitlines()[1] == "*"
