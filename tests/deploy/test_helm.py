"""The chart: rendered by helm itself, each object right for Kubernetes' own schemas, and with settings that nodes start
with. helm and the schemas come from tools/kubernetes.sh."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

from tests.support import ROOT

CHART = ROOT / "deploy" / "helm" / "tidegate"
LEAST = ("--set", "host=push.example.org,secret=tidegate-secrets")
OWN_EDGE = ("--set", "edge.mode=deployment,edge.resolver=10.96.0.10:53")
WAYS = {
    "default": LEAST,
    "all": (
        *LEAST,
        "--set", "ingress.enabled=true,ingress.tlsSecret=tls,events.enabled=true,serviceMonitor.enabled=true",
        "--set", "config.server.drain_s=40,config.events.url=https://app.example/events,edge.variant=njs",
    ),
    "own edges": (*LEAST, *OWN_EDGE, "--set", "serviceMonitor.enabled=true,edge.tlsSecret=tls"),
    "own edges with trunks": (*LEAST, *OWN_EDGE, "--set", "edge.variant=openresty"),
}  # fmt: skip
THEIRS = {"ServiceMonitor", "PodMonitor"}  # of the Prometheus operator, which has schemas of its own


pytestmark = pytest.mark.slow


@cache
def tools() -> Path:
    said = subprocess.run([ROOT / "tools" / "kubernetes.sh"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return Path(said.strip())


@cache
def helm(*args: str) -> tuple[int, str]:
    done = subprocess.run([tools() / "helm", *args], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@cache
def validator(version: str, kind: str, api: str) -> Any:
    folder = tools() / f"v{version}.0"
    group, _, number = api.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], number) if part)

    def retrieve(uri: str) -> Resource[Any]:
        return Resource.opaque(json.loads((folder / Path(uri).name).read_text()))

    schema = json.loads((folder / f"{name}.json").read_text())
    return jsonschema.Draft7Validator(schema, registry=Registry(retrieve=retrieve))  # type: ignore[call-arg]


def rendered(way: str) -> list[dict[str, Any]]:
    code, text = helm("template", "push", str(CHART), "--namespace", "ns", *WAYS[way])
    assert code == 0, text
    return [found for found in yaml.safe_load_all(text) if found]


def find(way: str, kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in rendered(way) if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod(way: str, name: str = "push-tidegate") -> dict[str, Any]:
    return find(way, "Deployment", name)["spec"]["template"]["spec"]


def container(spec: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in spec["containers"] if each["name"] == name]
    return found


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    code, text = helm("lint", "--strict", str(CHART), *LEAST)
    assert code == 0, text


@pytest.mark.parametrize("version", ["1.25", "1.37"])  # the oldest that the chart is for, and the newest
@pytest.mark.parametrize("way", WAYS)
def test_kubernetes_takes_each_object(way: str, version: str) -> None:
    objects = [found for found in rendered(way) if found["kind"] not in THEIRS]
    assert len(objects) > 5
    for found in objects:
        validator(version, found["kind"], found["apiVersion"]).validate(found)
    found = find(way, "Deployment", "push-tidegate")
    found["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(jsonschema.ValidationError):
        validator(version, "Deployment", "apps/v1").validate(found)


@pytest.mark.parametrize("way", WAYS)
def test_nodes_and_edges_start_with_the_settings(way: str, tmp_path: Path) -> None:
    config = find(way, "ConfigMap", "push-tidegate")["data"]["config.yaml"]
    (tmp_path / "config.yaml").write_text(config)
    environ = {
        "PYTHONPATH": str(ROOT / "service"),
        "TIDEGATE_CONFIG": str(tmp_path / "config.yaml"),
        "TIDEGATE_BROKER__URL": "redis://:secret@redis:6379/0",
    }
    if "trunks" in way:
        environ["TIDEGATE_TRUNK__KEY"] = "0123456789abcdef0123456789abcdef"
    for args in (("check",), ("render", "--out", str(tmp_path / "edge"))):
        command = [sys.executable, "-m", "tidegate", *args]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    named = {variable["name"] for variable in container(pod(way), "node")["env"]}
    assert named == environ.keys() - {"PYTHONPATH"}
    settings = yaml.safe_load(config)
    assert settings["internal"]["probes_by_address"] is True, "probes ask a pod by its address"
    assert settings["server"]["hosts"] == ["push.example.org"]


@pytest.mark.parametrize("way", WAYS)
def test_a_pod_has_time_to_drain_and_a_new_one_is_ready_first(way: str) -> None:
    deployment = find(way, "Deployment", "push-tidegate")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    drain_s = 40 if way == "all" else 20
    spec = deployment["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 5 + drain_s + 40
    assert container(spec, "node")["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    if "own" not in way:  # it ends after its node
        assert container(spec, "edge")["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(5 + drain_s + 2)]
    budget = find(way, "PodDisruptionBudget", "push-tidegate")["spec"]
    assert budget["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("way", WAYS)
def test_no_container_has_more_than_it_needs(way: str) -> None:
    for found in rendered(way):
        if found["kind"] != "Deployment":
            continue
        spec = found["spec"]["template"]["spec"]
        assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
        assert spec["securityContext"]["runAsNonRoot"] is True
        for each in spec["containers"] + spec.get("initContainers", []):
            security = each["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in each["resources"]["limits"]
            mounted = {mount["name"] for mount in each["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in spec["volumes"]}
            assert ("secrets" in mounted) == (each["name"] in ("node", "forward-events")), "nginx needs none"


@pytest.mark.parametrize("way", WAYS)
def test_services_lead_to_ports_that_are_there(way: str) -> None:
    objects = rendered(way)
    pods = [found["spec"]["template"] for found in objects if found["kind"] == "Deployment"]
    for service in (found for found in objects if found["kind"] == "Service"):
        selector = service["spec"]["selector"]
        (chosen,) = [each for each in pods if selector.items() <= each["metadata"]["labels"].items()]
        names = {port["name"] for each in chosen["spec"]["containers"] for port in each.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    api = find(way, "NetworkPolicy", "push-tidegate-nodes")["spec"]["ingress"]
    assert all("from" in rule for rule in api if {"port": 8001} in rule["ports"]), "the API is not everybody's"


def test_prometheus_knows_the_jobs_by_the_names_that_the_rules_have() -> None:
    rules = (ROOT / "deploy" / "monitoring" / "prometheus" / "tidegate.rules.yml").read_text()
    for way, kinds in (("all", ["ServiceMonitor"]), ("own edges", ["ServiceMonitor", "PodMonitor"])):
        found = [each["spec"] for each in rendered(way) if each["kind"] in THEIRS]
        assert sorted(each["kind"] for each in rendered(way) if each["kind"] in THEIRS) == sorted(kinds)
        endpoints = [point for spec in found for point in spec.get("endpoints", spec.get("podMetricsEndpoints"))]
        jobs = {point["port"]: point["relabelings"][0]["replacement"] for point in endpoints}
        assert jobs == {"internal": "tidegate", "metrics-edge": "tidegate-edge"}
        assert all(f'job="{job}"' in rules for job in jobs.values())


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("secret=s", "host: the name by which clients ask"),
        ("host=h", "secret: the name of a Secret that exists"),
        ("host=h,secret=s,edge.mode=deployment", "edge.resolver: the cluster's DNS server"),
        ("host=h,secret=s,edge.mode=side", "edge.mode: is sidecar or deployment"),
        ("host=h,secret=s,edge.variant=caddy", "edge.variant: is plain, njs or openresty"),
    ],
)
def test_what_is_missing_is_said(sets: str, said: str) -> None:
    code, text = helm("template", "push", str(CHART), "--set", sets)
    assert code != 0
    assert said in text
