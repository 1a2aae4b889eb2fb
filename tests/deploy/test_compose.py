"""compose.yaml: in the form that Docker reads, hardened, without a secret, and with files that exist."""

from __future__ import annotations

import ipaddress
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
from shipped import IN_TURN, TOOLS, assert_are_settings, check, documents, needs_tools, seconds

TEXT = (ROOT / "compose.yaml").read_text("utf-8")
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
EACH = pytest.mark.parametrize("name", SERVICES)
DOCKERS = ["172.16.0.0/12", "192.168.0.0/16"]  # of which Docker makes networks that nobody has asked for
FIRSTWORD = ["firstword-1", "firstword-2"]
SHIPPED = ["compose.yaml", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "deploy").rglob("*.y*ml"))]
VALIDATE = (
    "import sys, compose_spec; compose = compose_spec.PyCompose.from_json(sys.stdin.read());"
    "compose.validate(); compose.to_spec()"
)


def filled_in(text: str = TEXT) -> dict[str, Any]:
    """Return the file as Docker takes it: `${NAME:-default}` is the default, `${NAME:?why}` is what somebody set."""
    told = re.sub(r"\$\{\w+:([-?])([^}]*)\}", lambda found: found[2] if found[1] == "-" else "sk-given", text)
    assert "${" not in told, "a variable without a default, and without a word on what it is"
    return dict(yaml.safe_load(told))


@pytest.mark.parametrize("path", SHIPPED)
def test_no_key_stands_twice(path: str) -> None:
    """Two changes each add the same variable: Docker refuses the whole file."""
    assert documents(path)


@needs_tools
def test_it_has_the_form_that_compose_reads() -> None:
    """A key is misspelt, a duration is none, a network or a volume is not defined."""
    check(TOOLS / "python", "-c", VALIDATE, stdin=json.dumps(filled_in()))


@needs_tools
@pytest.mark.parametrize(
    ("right", "wrong"), [("mem_limit", "mem_limt"), ("interval: 10s", "interval: ten"), ("[inside]", "[insde]")]
)
def test_a_wrong_form_is_found(right: str, wrong: str) -> None:
    """The tool that the test above trusts."""
    with pytest.raises(AssertionError):
        check(TOOLS / "python", "-c", VALIDATE, stdin=json.dumps(filled_in(TEXT.replace(right, wrong))))


@EACH
def test_a_service_can_do_no_more_than_it_must(name: str) -> None:
    """Whoever breaks into one of them finds a root that cannot be written, no rights, and bounds."""
    service = SERVICES[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] and service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]
    assert "healthcheck" in service or name in FIRSTWORD  # the image's own


@EACH
def test_an_image_is_of_one_version(name: str) -> None:
    """`latest` is another tomorrow."""
    image = SERVICES[name]["image"]
    if name in FIRSTWORD:
        assert SERVICES[name]["build"] == "."
    else:
        assert re.fullmatch(r"docker\.io/[\w/-]+:v?\d+\.\d+\.\d+(-alpine)?", image)


@EACH
def test_what_is_mounted_exists(name: str) -> None:
    """A file that is not there is a folder that Docker makes, and a server that does not start."""
    volumes = [each.split(":") for each in SERVICES[name].get("volumes", [])]
    files = [source for source, *_ in volumes if source.startswith(".")]
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert all(options == ["ro"] for source, _, *options in volumes if source.startswith("."))


def test_the_servers_settings_are_settings() -> None:
    """A name that the server does not know is an error at its start."""
    for name in FIRSTWORD:
        environment = filled_in()["services"][name]["environment"]
        assert_are_settings(environment)
        drain = float(environment["FIRSTWORD_DRAIN_TIMEOUT"])
        assert IN_TURN < drain < seconds(SERVICES[name]["stop_grace_period"])
    assert seconds(SERVICES["balancer"]["stop_grace_period"]) > IN_TURN
    assert SERVICES["balancer"]["stop_signal"] == "SIGQUIT"


def test_nothing_secret_stands_in_it() -> None:
    """It is committed: keys and passwords come from outside, and without them nothing starts."""
    environments = [service.get("environment", {}) for service in SERVICES.values()]
    secret = {k: v for each in environments for k, v in each.items() if re.search("KEY|SECRET|PASSWORD|TOKEN", k)}
    assert len(secret) > 2
    for name, value in secret.items():
        assert re.match(r"\$\{\w+:\?", value), name


def test_no_file_is_made_of_a_variable_where_the_root_cannot_be_written() -> None:
    """Compose refuses to start such a service: "`file` is the sole supported option"."""
    whole = yaml.safe_load(TEXT)
    made = {
        (kind, name)
        for kind in ("secrets", "configs")
        for name, each in whole.get(kind, {}).items()
        if "file" not in each
    }
    for name, service in SERVICES.items():
        taken = {
            (kind, each if isinstance(each, str) else each["source"])
            for kind in ("secrets", "configs")
            for each in service.get(kind, [])
        }
        assert not (service["read_only"] and taken & made), name


def test_prometheus_finds_its_key_and_nobody_else_does(tmp_path: Path) -> None:
    """What compose.yaml starts instead of Prometheus writes the key down and becomes it; here in another folder."""
    service = filled_in()["services"]["prometheus"]
    shell, flags, script, *words = [each.replace("$$", "$") for each in service["entrypoint"]]
    told = tmp_path / "prometheus"
    told.write_text('#!/bin/sh\nprintf "%s\\n" "$METRICS_KEY" "$@"\n')
    told.chmod(0o755)
    script = script.replace("/tmp/", f"{tmp_path}/").replace("/bin/prometheus", str(told))
    key = "sk-a 'key' $HOME"
    done = subprocess.run(
        [shell, flags, script, *words, *service["command"]],
        env={**os.environ, "METRICS_KEY": key},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["", *service["command"]] and done.returncode == 0
    [job] = documents("deploy/prometheus.yml")[0]["scrape_configs"]
    file = tmp_path / Path(job["authorization"]["credentials_file"]).name
    assert file.read_text() == key and file.stat().st_mode & 0o777 == 0o600
    assert service["environment"] == {
        "METRICS_KEY": filled_in()["services"]["firstword-1"]["environment"]["FIRSTWORD_OPERATOR_KEY"]
    }
    assert any(each.startswith("/tmp:") for each in service["tmpfs"])


def test_only_the_balancer_is_open_to_the_world_and_only_when_told() -> None:
    """A port that is published by Docker is open past the machine's own firewall."""
    ports = {name: service["ports"] for name, service in filled_in()["services"].items() if "ports" in service}
    assert ports == {"balancer": ["127.0.0.1:8000:8080"], "grafana": ["127.0.0.1:3000:3000"]}
    assert yaml.safe_load(TEXT)["networks"]["inside"]["internal"] is True
    assert SERVICES["valkey"]["networks"] == SERVICES["prometheus"]["networks"] == ["inside"]


def test_who_a_caller_is_only_the_balancer_says() -> None:
    """Callers come in by a private network as well: whoever is trusted there chooses an address of their own."""
    whole = filled_in()
    [subnet] = whole["networks"]["inside"]["ipam"]["config"]
    trusted = whole["services"]["firstword-1"]["environment"]["FIRSTWORD_TRUSTED_PROXIES"]
    assert trusted == subnet["subnet"] and ipaddress.ip_network(trusted).num_addresses <= 256
    assert not any(ipaddress.ip_network(trusted).overlaps(ipaddress.ip_network(each)) for each in DOCKERS)
    for name in FIRSTWORD:
        assert set(SERVICES[name]["networks"]) & set(SERVICES["balancer"]["networks"]) == {"inside"}
        assert "ports" not in SERVICES[name]
    entering = {name for name, service in SERVICES.items() if "front" in service["networks"]}
    assert entering == {name for name, service in SERVICES.items() if "ports" in service}


def test_prometheus_asks_each_server_and_grafana_asks_prometheus() -> None:
    """A server is renamed, or a third one is added."""
    [prometheus] = documents("deploy/prometheus.yml")
    [job] = prometheus["scrape_configs"]
    [targets] = job["static_configs"]
    assert targets["targets"] == [f"{name}:8000" for name in FIRSTWORD]
    mounted = [each.split(":")[1] for each in SERVICES["prometheus"]["volumes"]]
    assert [f"/etc/prometheus/{file}" for file in prometheus["rule_files"]] == [
        file for file in mounted if "alerts" in file
    ]
    [source] = documents("deploy/grafana/datasources.yml")[0]["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = documents("deploy/grafana/dashboards.yml")[0]["providers"]
    folder = provider["options"]["path"]
    assert any(each.split(":")[1].startswith(f"{folder}/") for each in SERVICES["grafana"]["volumes"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on this machine")
def test_prometheus_takes_its_file_and_the_rules() -> None:
    """A key is misspelt, or the rules are none."""
    check("promtool", "check", "config", "--syntax-only", ROOT / "deploy" / "prometheus.yml")
