"""docs/deploying.md: each line that is shown is one that is tested, or is tried here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from caller import Caller
from conftest import ROOT
from shipped import NAMES, check, documents

from firstword.serving import SETUP

PAGE = (ROOT / "docs" / "deploying.md").read_text("utf-8")
CI = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
NGINX_CONF = (ROOT / "deploy" / "nginx.conf").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    """Return the page's blocks of code of that kind, without the indentation of a list."""
    found = re.findall(rf"^( *)```{kind}\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def commands(start: str) -> list[list[str]]:
    """Return the commands of the page that begin with these words, each as its words."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith(start)]


@pytest.mark.parametrize("text", blocks("bash"))
def test_a_shell_can_read_each_command(text: str) -> None:
    """A quote is missing."""
    check("bash", "-n", "-c", text)


def test_the_container_is_run_as_ci_runs_it() -> None:
    """The line of the page is the one that a workflow runs for every change, word for word."""
    shown = commands("docker run --detach")
    assert [" ".join(words) for words in shown] == [
        " ".join(shlex.split(line.replace("\\\n", " "))) for line in re.findall(r"docker run --detach(?:.*\\\n)*.*", CI)
    ]
    [build] = commands("docker build")
    assert f"run: {' '.join(build)}\n" in CI


def test_what_the_mount_covers_is_what_is_served() -> None:
    """The file in the image is moved."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert "\nWORKDIR /app\n" in dockerfile and '\nCMD ["serve", "custom_llm.py"]\n' in dockerfile
    assert all("my_brain.py:/app/custom_llm.py:ro" in " ".join(words) for words in commands("docker run --volume"))
    [block] = blocks("dockerfile")
    base = re.findall(r"^FROM (\S+)@sha256", dockerfile, re.MULTILINE)[0]
    assert re.findall(r"^FROM (\S+) AS", block, re.MULTILINE) == [base]


def test_the_env_file_has_all_that_compose_asks_for_and_no_more() -> None:
    """A variable is added to compose.yaml: without it nothing starts."""
    [block] = [text for text in blocks("text") if "GRAFANA" in text]
    given = {line.split("=")[0] for line in block.splitlines()}
    text = (ROOT / "compose.yaml").read_text("utf-8")
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert given == asked
    assert set(re.findall(r"^ +(\w+): none$", CI, re.MULTILINE)) == asked
    assert subprocess.run(["git", "check-ignore", "-q", ".env"], cwd=ROOT).returncode == 0


def test_compose_commands_name_services_that_exist() -> None:
    """A service is renamed."""
    services = documents("compose.yaml")[0]["services"]
    restarted = [words[-1] for words in commands("docker compose up") if words[-1] != "--wait"]
    assert restarted == [name for name in services if name.startswith("firstword")]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on this machine")
def test_the_secret_and_the_kustomization_are_taken(tmp_path: Path) -> None:
    """A reader follows the five steps; the cluster is left out."""
    [make] = commands("kubectl create secret")
    made = yaml.safe_load(check(*make, "--dry-run=client", "--output=yaml"))
    [example] = documents("deploy/kubernetes/secret.example.yaml")
    assert made["metadata"]["name"] == example["metadata"]["name"]
    assert set(made["data"]) == set(example["stringData"])

    [mine] = [text for text in blocks("yaml") if "Kustomization" in text]
    shutil.copytree(ROOT / "deploy", tmp_path / "firstword" / "deploy")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(mine)
    kinds = {each["kind"]: each for each in yaml.safe_load_all(check("kubectl", "kustomize", tmp_path / "mine"))}
    [container] = kinds["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example.com/my-brain@sha256:")
    assert kinds["ConfigMap"]["data"]["LLM_MODEL"] == "your-model-name"
    [label] = commands("kubectl label")
    key, _, value = label[-1].partition("=")
    [peer] = kinds["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {key: value}


def test_the_units_files_go_where_the_unit_looks(tmp_path: Path) -> None:
    """The lines for systemd are run, in a folder instead of at the root; registry and systemd are left out."""
    [block] = [text for text in blocks("bash") if "systemctl enable" in text]
    kept = [line for line in block.splitlines() if line.startswith("install ")]
    script = "\n".join(kept).replace(" /etc/", f" {tmp_path}/etc/")
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    check("bash", "-e", "-c", script)
    unit = (tmp_path / "etc/systemd/system/firstword.service").read_text("utf-8")
    for path in re.findall(r"^LoadCredential=\w+:(\S+)$", unit, re.MULTILINE):
        file = Path(f"{tmp_path}{path}")
        assert file.read_text("utf-8").strip() and file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
    folder = re.findall(r"^WorkingDirectory=(.+)$", unit, re.MULTILINE)[0]
    assert Path(f"{tmp_path}{folder}/custom_llm.py").read_bytes() == (ROOT / "custom_llm.py").read_bytes()
    [environment] = [words[-1] for words in commands("python3 -m venv")]
    assert f"exec {environment}/bin/firstword" in unit
    assert [words[-1] for words in commands(f"{environment}/bin/pip install --require-hashes")] == ["locks/image.txt"]


def test_what_the_page_shows_of_nginx_is_in_the_tested_file() -> None:
    """A line is mended in one of them."""
    [block] = blocks("nginx")
    tested = {re.sub(r"\s+#.*", "", line).strip() for line in NGINX_CONF.splitlines()}
    assert [line for line in map(str.strip, block.splitlines()) if line not in tested] == []


@pytest.mark.skipif(shutil.which("caddy") is None, reason="there is no caddy on this machine")
def test_caddy_takes_its_file(tmp_path: Path) -> None:
    """A directive is misspelt, or of another version."""
    (tmp_path / "Caddyfile").write_text(blocks("caddyfile")[0])
    command = ["caddy", "validate", "--adapter", "caddyfile", "--config", str(tmp_path / "Caddyfile")]
    told = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=told)
    assert done.returncode == 0, done.stderr


def test_the_numbers_of_the_page_are_those_of_the_files() -> None:
    """A timeout is changed in a file or in the code."""
    assert f"{SETUP.keep_alive} s for which the server keeps a connection" in " ".join(PAGE.split())
    settings = documents("deploy/kubernetes/settings.yaml")[0]["data"]
    pod = documents("deploy/kubernetes/deployment.yaml")[0]["spec"]["template"]["spec"]
    text = " ".join(PAGE.split())
    for said in (
        f"`FIRSTWORD_DRAIN_DELAY`, {settings['FIRSTWORD_DRAIN_DELAY']} s",
        f"`FIRSTWORD_DRAIN_TIMEOUT`, {settings['FIRSTWORD_DRAIN_TIMEOUT']} s",
        f"Kubernetes kills after {pod['terminationGracePeriodSeconds']} s",
        f"as user {pod['securityContext']['runAsUser']}",
    ):
        assert said in text, said
    for name in set(re.findall(r"`?(FIRSTWORD_[A-Z_]+)", PAGE)):
        assert name in NAMES, name


async def test_the_turn_of_the_page_is_answered(caller: Caller) -> None:
    """A reader copies the line for curl; here without the balancer and the key."""
    [words] = commands("curl -N http://localhost:8000")
    body = words[words.index("-d") + 1].encode()
    heard = await caller.hears(body)
    assert heard.status == 200 and heard.done


@pytest.mark.parametrize("page", ["docs/deploying.md", "docs/capacity.md", "SECURITY.md"])
def test_links_lead_somewhere(page: str) -> None:
    """A file or a heading is renamed. What another page is yet to bring is named in its own tests."""
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, heading = target.partition("#")
        file = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert target.startswith("https://") or file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, target


def test_this_page_is_led_to() -> None:
    """A page that nobody finds."""
    for page in ("README.md", "README-CN.md", "docs/running.md"):
        text = (ROOT / page).read_text("utf-8")
        assert "deploying.md" in text and "capacity.md" in text, page
