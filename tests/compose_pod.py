"""A pod of the Helm chart without a cluster: its containers, as helm renders them, in one network and with the volumes
that they share. tools/compose_production_test.sh runs ``python -m tests.compose_pod VARIANT FOLDER``; the folder is
empty. Ends with an AssertionError where a probe, a push or a stop is not as docs/deploying.md says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import yaml

from tests.compose_session import PATH, Session, docker, patiently
from tests.support import ROOT

USER = 10001
SECRET = "0123456789abcdef0123456789abcdef"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def chart(variant: str) -> tuple[str, dict[str, Any]]:
    """config.yaml, and the pod."""
    tools = subprocess.run([ROOT / "tools" / "kubernetes.sh"], stdout=subprocess.PIPE, text=True, check=True).stdout
    sets = f"host=push.example.org,secret=s,image.tag=latest,edge.variant={variant}"
    command = [f"{tools.strip()}/helm", "template", "push", str(ROOT / "deploy" / "helm" / "tidegate"), "--set", sets]
    rendered = yaml.safe_load_all(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    found = {(each["kind"], each["metadata"]["name"]): each for each in rendered if each}
    config = found["ConfigMap", "push-tidegate"]["data"]["config.yaml"]
    return config, found["Deployment", "push-tidegate"]["spec"]["template"]["spec"]


class Pod:
    """Containers named ``tidegate-pod-…``; ``address`` is the pod's."""

    def __init__(self, config: str, folder: Path) -> None:
        self._folder = folder
        for volume, name, text in (
            ("config", "config.yaml", config),
            ("secrets", "tokens", SECRET),
            ("secrets", "api", SECRET[::-1]),
        ):
            self._volume(volume).joinpath(name).write_text(text)
        docker("run", "--detach", "--name", "tidegate-pod-redis", "redis:8-alpine")
        docker("run", "--detach", "--name", "tidegate-pod-pause", "--entrypoint", "sleep", "tidegate", "600")
        self._redis, self.address = _address("tidegate-pod-redis"), _address("tidegate-pod-pause")

    def _volume(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir(exist_ok=True)
        os.chown(path, USER, USER)
        return path

    def run(self, container: dict[str, Any], *options: str) -> None:
        mounts = [
            f"--volume={self._volume(mount['name'])}:{mount['mountPath']}" + (":ro" if mount.get("readOnly") else "")
            for mount in container["volumeMounts"]
        ]
        environ = [
            f"--env={each['name']}={each.get('value') or f'redis://{self._redis}:6379/0'}"
            for each in container.get("env", ())
        ]
        program, *words = container.get("command", [""])
        closed = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", f"--user={USER}:{USER}")
        entrypoint = [f"--entrypoint={program}"] if program else []
        place = (f"--name=tidegate-pod-{container['name']}", "--network=container:tidegate-pod-pause")
        what = (container["image"], *words, *container.get("args", ()))
        docker("run", *options, *place, *closed, *mounts, *environ, *entrypoint, *what)


def _address(container: str) -> str:
    return docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container).strip()


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=3) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        return exc.code
    except OSError:
        return 0


@contextlib.contextmanager
def removed_at_the_end() -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run("docker ps -aq --filter name=tidegate-pod- | xargs -r docker rm --force", shell=True, check=True)


async def main(variant: str, folder: Path) -> None:
    config, spec = chart(variant)
    with removed_at_the_end():
        pod = Pod(config, folder)
        for container in spec["initContainers"]:
            pod.run(container, "--rm")
        for container in spec["containers"]:
            pod.run(container, "--detach")
        probes = [
            f"http://{pod.address}:{port['containerPort']}{container[probe]['httpGet']['path']}"
            for container in spec["containers"]
            for probe in PROBES
            if probe in container
            for port in container["ports"]
            if port["name"] == container[probe]["httpGet"]["port"]
        ]
        assert len(probes) == 5, probes

        async def ready() -> bool:
            return all([await asyncio.to_thread(status, url) == 200 for url in probes])

        await patiently(ready)
        assert await asyncio.to_thread(status, f"http://{pod.address}:8001/metrics") == 200
        assert await asyncio.to_thread(status, f"http://{pod.address}:8001/api/nodes") == 403, "by its address"
        await pushed_and_stopped(pod)


async def pushed_and_stopped(pod: Pod) -> None:
    token = jwt.encode({"sub": "alice", "exp": time.time() + 600}, SECRET, "HS256")
    client = {"Host": "push.example.org", "Authorization": f"Bearer {token}"}
    application = {"Host": "push-tidegate-internal:8001", "Authorization": f"Bearer {SECRET[::-1]}"}
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(f"http://{pod.address}:8080{PATH}", headers=client) as socket:
            alice = await Session(socket).welcome()
            url = f"http://{pod.address}:8001/api/clients/alice/push"
            async with http.post(url, json={"data": 1}, headers=application) as answer:
                assert answer.status == 202, await answer.text()
            assert (await alice.event())["data"] == 1
            stopping = asyncio.to_thread(docker, "stop", "--timeout", "60", "tidegate-pod-node")
            code, _ = await asyncio.gather(alice.ended(), stopping)
            assert code == 1012, code
    await asyncio.to_thread(docker, "stop", "--timeout", "60", "tidegate-pod-edge")
    codes = docker("inspect", "--format", "{{.State.ExitCode}}", "tidegate-pod-node", "tidegate-pod-edge")
    assert codes.split() == ["0", "0"]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
