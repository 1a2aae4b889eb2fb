"""deploy/kubernetes/: valid against Kubernetes' own schemas, held to the code, restricted, and no turn lost."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmarks.capacity import Measured
from caller import Caller
from conftest import ROOT
from shipped import IN_TURN, TOOLS, assert_are_settings, check, documents, needs_tools

from firstword.settings import Settings

FOLDER = ROOT / "deploy" / "kubernetes"
[KUSTOMIZATION] = documents("deploy/kubernetes/kustomization.yaml")
RESOURCES = [FOLDER / name for name in KUSTOMIZATION["resources"]]
KINDS: dict[str, dict[str, Any]] = {
    document["kind"]: document for path in RESOURCES for document in documents(str(path.relative_to(ROOT)))
}
POD = KINDS["Deployment"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
SAME = {"app.kubernetes.io/name": "firstword"}
[EXAMPLE] = documents("deploy/kubernetes/secret.example.yaml")


def validated(*files: Path) -> None:
    """Assert that files are valid for Kubernetes 1.37."""
    check(TOOLS / "kubernetes-validate", "--strict", "-k", "1.37", *files)


@needs_tools
def test_each_is_valid() -> None:
    """A field is misspelt, stands in the wrong place or has the wrong type."""
    validated(*RESOURCES, FOLDER / "secret.example.yaml")


@needs_tools
def test_a_field_that_kubernetes_does_not_know_is_found(tmp_path: Path) -> None:
    """The tool that the test above trusts: without `--strict` it would take this."""
    text = (FOLDER / "deployment.yaml").read_text("utf-8")
    wrong = tmp_path / "deployment.yaml"
    wrong.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    with pytest.raises(AssertionError, match="readOnlyRootFileSystem"):
        validated(wrong)


def test_every_file_is_applied() -> None:
    """Somebody adds a file and forgets the list; the example of a secret must never be in it."""
    here = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert {path.name for path in RESOURCES} == here
    assert {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"} < set(KINDS)
    assert "Secret" not in KINDS


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on this machine")
@pytest.mark.parametrize("folder", ["deploy/kubernetes", "deploy/kubernetes/monitoring"])
def test_kustomize_takes_it(folder: str) -> None:
    """`kubectl apply -k`, as the page says."""
    done = subprocess.run(["kubectl", "kustomize", ROOT / folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    assert len(made) == len(documents(f"{folder}/kustomization.yaml")[0]["resources"])


def test_the_variables_are_settings() -> None:
    """A name that the server does not know keeps it from starting, and so does a value that cannot be."""
    assert_are_settings({**KINDS["ConfigMap"]["data"], **EXAMPLE["stringData"]})
    sources = [next(iter(each.values()))["name"] for each in CONTAINER["envFrom"]]
    assert sources == [KINDS["ConfigMap"]["metadata"]["name"], EXAMPLE["metadata"]["name"]]
    assert "env" not in CONTAINER


def test_kubernetes_own_variables_stay_out() -> None:
    """A Service called firstword gives every pod a FIRSTWORD_PORT of `tcp://10.0.0.1:8000`, which is no port."""
    assert POD["enableServiceLinks"] is False


def test_a_pod_has_the_rights_of_the_restricted_profile() -> None:
    """The Pod Security Standards' strictest level, and a root that cannot be written."""
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    user = f"{POD['securityContext']['runAsUser']}:{POD['securityContext']['runAsGroup']}"
    assert f"\nUSER {user}\n" in (ROOT / "Dockerfile").read_text("utf-8")
    assert POD["automountServiceAccountToken"] is False and "hostNetwork" not in POD
    assert [set(volume) - {"name"} for volume in POD["volumes"]] == [{"emptyDir"}]


async def test_the_probes_ask_what_the_server_answers(caller: Caller) -> None:
    """A path or the port is changed in the code."""
    probes = {kind: CONTAINER[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["httpGet"]["path"] for kind, probe in probes.items()} == {
        "startup": "/health",
        "liveness": "/health",
        "readiness": "/ready?models=no",
    }
    for path in ("/health", "/ready?models=no"):
        assert (await caller.hears(path=path, method="GET")).status == 200
    [port] = CONTAINER["ports"]
    assert port == {"name": "http", "containerPort": Settings.model_fields["port"].default}
    assert all(probe["httpGet"]["port"] == "http" for probe in probes.values())
    assert probes["liveness"]["periodSeconds"] * probes["liveness"]["failureThreshold"] >= 30


def test_a_pod_that_goes_has_time_for_every_turn() -> None:
    """The endpoint is withdrawn while all is served as before; then the server drains, longer than a turn may take."""
    data = KINDS["ConfigMap"]["data"]
    delay, drain, turn = (float(data[f"FIRSTWORD_{name}"]) for name in ("DRAIN_DELAY", "DRAIN_TIMEOUT", "TURN_TIMEOUT"))
    probes = CONTAINER["readinessProbe"]
    assert delay >= 5 and delay >= 2 * probes["periodSeconds"]
    assert drain > turn == IN_TURN
    assert POD["terminationGracePeriodSeconds"] > delay + drain


def test_a_rolling_restart_takes_none_away_before_another_serves() -> None:
    """The default would take a quarter of them at once."""
    spec = KINDS["Deployment"]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["replicas"] == KINDS["HorizontalPodAutoscaler"]["spec"]["minReplicas"] >= 2
    assert KINDS["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_all_of_them_mean_the_same_pods() -> None:
    """A label is changed in one file: a Service without pods, a budget that guards nothing, a policy for nobody."""
    spec = KINDS["Deployment"]["spec"]
    selectors = [
        spec["selector"]["matchLabels"],
        spec["template"]["metadata"]["labels"],
        KINDS["Service"]["spec"]["selector"],
        KINDS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        KINDS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in POD["topologySpreadConstraints"]),
        documents("deploy/kubernetes/monitoring/monitor.yaml")[0]["spec"]["selector"]["matchLabels"],
        KINDS["Service"]["metadata"]["labels"],
    ]
    assert all(selector == SAME for selector in selectors)
    assert KINDS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == KINDS["Deployment"]["metadata"]["name"]


def test_the_autoscaler_asks_for_nothing_that_a_cluster_may_lack() -> None:
    """While one of its metrics is unknown, it adds pods and never takes one away: turns are for who has the adapter."""
    [cpu] = KINDS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert cpu["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}
    assert CONTAINER["resources"]["requests"]["cpu"] == "1" and "cpu" not in CONTAINER["resources"]["limits"]


def test_the_autoscaler_counts_turns_with_a_metric_that_the_adapter_brings() -> None:
    """A metric is renamed."""
    [component] = documents("deploy/kubernetes/turns/kustomization.yaml")
    [patch] = component["patches"]
    assert component["kind"] == "Component" and patch["target"]["name"] == SAME["app.kubernetes.io/name"]
    [[added]] = documents(f"deploy/kubernetes/turns/{patch['path']}")
    assert (added["op"], added["path"], patch["target"]["kind"]) == (
        "add",
        "/spec/metrics/-",
        "HorizontalPodAutoscaler",
    )
    pods = added["value"]
    name = pods["pods"]["metric"]["name"]
    [rule] = documents("deploy/kubernetes/monitoring/adapter.yaml")[0]["rules"]["custom"]
    assert rule["name"]["as"] == name == "firstword_turns_in_progress"
    assert rule["seriesQuery"].startswith(f"{name}{{")
    target = float(pods["pods"]["target"]["averageValue"])
    assert target == 0.6 * Measured().streams


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on this machine")
def test_turns_are_added_to_what_a_reader_has_of_their_own(tmp_path: Path) -> None:
    """The line of the page, in a kustomization beside a clone of this repository."""
    [line] = re.findall(r"`(components: .+?)`", (ROOT / "docs" / "deploying.md").read_text("utf-8"))
    shutil.copytree(ROOT / "deploy", tmp_path / "firstword" / "deploy")
    mine = tmp_path / "mine"
    mine.mkdir()
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
    (mine / "kustomization.yaml").write_text(f"{head}resources: [../firstword/deploy/kubernetes]\n{line}\n")
    built = check("kubectl", "kustomize", mine)
    [scaler] = [each for each in yaml.safe_load_all(built) if each["kind"] == "HorizontalPodAutoscaler"]
    assert [each["type"] for each in scaler["spec"]["metrics"]] == ["Resource", "Pods"]
    if TOOLS.exists():
        (tmp_path / "built.yaml").write_text(built)
        validated(tmp_path / "built.yaml")


def test_it_reaches_no_private_address() -> None:
    """A server that was talked into asking the cloud's metadata for keys."""
    blocks = [
        each["ipBlock"] for rule in KINDS["NetworkPolicy"]["spec"]["egress"] for each in rule["to"] if "ipBlock" in each
    ]
    barred = [ipaddress.ip_network(net) for block in blocks for net in block["except"]]
    reserved = ("169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd00:ec2::254", "fe80::1")
    for address in reserved:
        assert any(ipaddress.ip_address(address) in net for net in barred), address
    assert set(KINDS["NetworkPolicy"]["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_prometheus_takes_a_key_that_the_secret_has() -> None:
    """A key of the Secret is renamed."""
    [monitor] = documents("deploy/kubernetes/monitoring/monitor.yaml")
    [endpoint] = monitor["spec"]["endpoints"]
    credentials = endpoint["authorization"]["credentials"]
    assert credentials["name"] == EXAMPLE["metadata"]["name"] and credentials["key"] in EXAMPLE["stringData"]
    assert endpoint["port"] in [port["name"] for port in KINDS["Service"]["spec"]["ports"]]


def test_nothing_secret_stands_in_the_example() -> None:
    """Somebody fills it in, and commits it."""
    assert all(re.fullmatch(r"the [a-z ,]+", value) for value in EXAMPLE["stringData"].values())
