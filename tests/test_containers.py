"""The containers are hard to leave and hold nothing of worth: what compose.yaml and the Dockerfile promise in
docs/security.md."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.support import ROOT


class Loader(yaml.SafeLoader):
    """Knows Compose's own tag for what goes in place of something, and not beside it."""


Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))  # type: ignore[arg-type]


def load(name: str) -> dict[str, Any]:
    """With what its services take over from other files."""
    compose: dict[str, Any] = yaml.load((ROOT / name).read_text(), Loader)
    for service in compose["services"].values():
        if of := service.pop("extends", None):
            service.update({**load(of["file"])["services"][of["service"]], **service})
    return compose


COMPOSE, NODES, PRODUCTION = load("compose.yaml"), load("compose.nodes.yaml"), load("compose.production.yaml")
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {"rest", "service", "init", "node1", "node2", "node3", "forward-events"}  # run the image that is built here
EDGES = {"plain", "njs", "openresty"}
WATCHING = {"prometheus", "grafana"}
FOR_CLIENTS = {"${TIDEGATE_BIND:-0.0.0.0}:${TIDEGATE_TLS_PORT:-443}:8443"}

# What would give a container more of its host than it needs.
WIDE = {
    "cap_add", "cgroup_parent", "device_cgroup_rules", "devices", "extra_hosts", "ipc", "network_mode", "pid",
    "privileged", "userns_mode", "uts", "volumes_from",
}  # fmt: skip


def faults(services: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, service in services.items():
        if service.get("read_only") is not True:
            yield f"{name}: its root can be written to"
        if service.get("cap_drop") != ["ALL"]:
            yield f"{name}: it keeps capabilities"
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name}: it may get new privileges"
        if not 0 < service.get("pids_limit", 0) <= 1024:
            yield f"{name}: its processes have no limit"
        if service.keys() & WIDE:
            yield f"{name}: {sorted(service.keys() & WIDE)}"
        if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", service.get("user", "" if name not in OURS else _user())):
            yield f"{name}: it runs as root, or as a name that an image could give to root"
        for volume in service.get("volumes", ()):
            source, target, *mode = re.sub(r"\$\{[^}]*\}", "variable", volume).split(":")
            if source.startswith(("/", ".", "~")):
                yield f"{name}: {volume} is a folder of the host"
            if name in EDGES and mode != ["ro"]:
                yield f"{name}: {target} can be written to"
        for port in service.get("ports", ()):
            if not re.match(r"\$\{TIDEGATE_BIND(_INTERNAL)?:-127\.0\.0\.1\}:", port) and port not in FOR_CLIENTS:
                yield f"{name}: {port} is open to everybody"
        if service.get("logging", {}).get("options", {}).keys() != {"max-size", "max-file"}:
            yield f"{name}: its log has no limit"


def _user() -> str:
    return re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[-1]


def test_no_container_has_more_than_it_needs() -> None:
    assert set(SERVICES) == {"redis", "rest", "service", "init"} | EDGES | WATCHING
    assert list(faults(SERVICES)) == []


def test_those_for_others_have_no_more_either_and_their_memory_is_bounded() -> None:
    services = PRODUCTION["services"]
    assert set(services) == {"redis", "init", "node1", "node2", "node3", "forward-events"} | EDGES | WATCHING
    assert list(faults(services)) == []
    for name, service in services.items():
        assert "mem_limit" in service or name == "init", name
        assert set(service.get("ports", ())) <= FOR_CLIENTS or name.startswith("node") or name in WATCHING, name
        assert service["restart"] == ("no" if name == "init" else "unless-stopped")
    assert services["redis"]["networks"] == ["redis"]
    assert PRODUCTION["networks"]["redis"] == {"internal": True}
    text = (ROOT / "compose.production.yaml").read_text()
    assert not re.search("ANYWHERE|for-trying", text)


@pytest.mark.parametrize("services", [SERVICES, PRODUCTION["services"]], ids=["trial", "production"])
def test_one_image_is_built_once(services: dict[str, dict[str, Any]]) -> None:
    assert [name for name, service in services.items() if "build" in service] == ["init"]
    ours = {name: service for name, service in services.items() if name in OURS}
    assert len({service["image"] for service in ours.values()}) == 1
    assert {service["pull_policy"] for service in ours.values()} <= {"never", "${TIDEGATE_PULL:-never}"}


@pytest.mark.parametrize(
    "change",
    [
        lambda service: service.pop("read_only"),
        lambda service: service.update(cap_drop=["NET_RAW"]),
        lambda service: service.update(cap_add=["NET_BIND_SERVICE"]),
        lambda service: service.pop("security_opt"),
        lambda service: service.update(user="root"),
        lambda service: service.update(user="0:0"),
        lambda service: service.update(privileged=True),
        lambda service: service.update(network_mode="host"),
        lambda service: service.pop("pids_limit"),
        lambda service: service.update(volumes=["/var/run/docker.sock:/var/run/docker.sock:ro"]),
        lambda service: service.update(ports=["8080:8080"]),
        lambda service: service.pop("logging"),
    ],
)
@pytest.mark.parametrize("name", ["service", "plain"])
def test_each_that_is_taken_away_is_missed(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    services = copy.deepcopy(SERVICES)
    change(services[name])
    assert [fault.partition(":")[0] for fault in faults(services)] == [name]


def test_several_nodes_are_no_softer_than_one() -> None:
    assert {key for service in NODES["services"].values() for key in service} <= {"environment", "labels", "ports"}
    assert list(faults({"service": SERVICES["service"] | NODES["services"]["service"]})) == []


def test_the_image_is_built_from_what_is_locked_and_runs_as_nobody() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    last = stages[-1]
    assert _user() == "10001:10001"
    assert last.index("\nUSER ") < last.index("\nENTRYPOINT ")
    assert "\nUSER root" not in last
    assert "\nUSER 0" not in last
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    assert not re.search(r"^ADD |curl |wget |--trusted-host|apt-get", DOCKERFILE, re.MULTILINE)
    assert "pip install" not in last, "what builds stays behind"


def test_no_secret_is_built_in() -> None:
    """Neither in the image nor in compose.yaml, which are committed; nor sent to where it is built."""
    telling = re.compile(r"key|secret|token|password", re.IGNORECASE)
    names = re.findall(r"^(?:ENV|ARG) (.*)$", DOCKERFILE, re.MULTILINE)
    assert [line for line in names if telling.search(line)] == []
    settings = {**COMPOSE["x-settings"], **NODES["x-settings"], **PRODUCTION["x-settings"]}
    told = {name: value for name, value in settings.items() if telling.search(name)}
    assert told.pop("TIDEGATE_INTERNAL__KEYLESS_ANYWHERE") == "true"
    assert told.pop("TIDEGATE_AUTH__KEY_FILE").startswith("/run/secrets/")
    assert "key_file" in told["TIDEGATE_INTERNAL__API_KEYS"]
    assert '"key":' not in told.pop("TIDEGATE_INTERNAL__API_KEYS")
    for name, value in told.items():  # of the environment, else one that says what it is
        assert re.fullmatch(r"\$\{TIDEGATE_\w+:-for-trying-only-[\w-]+\}", value), name
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored, "what is sent is listed"
    assert not any("deploy" in line for line in ignored if line.startswith("!"))


def test_the_trial_settings_are_said_to_be_some() -> None:
    text = (ROOT / "compose.yaml").read_text()
    for name in ("ANONYMOUS_ANYWHERE", "KEYLESS_ANYWHERE"):
        above = text[: text.index(name)].splitlines()[-3:]
        assert any("For trying only" in line for line in above), name
