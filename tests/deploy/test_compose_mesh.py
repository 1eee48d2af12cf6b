"""What docker/compose.yaml describes, run without an engine: users, Redis, nodes, collector."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab.net import Lab
from waiting import wait_until

from deploy.container import Container, Rights
from deploy.image import Image
from deploy.needs import DOCKER, tool

pytestmark = [pytest.mark.long, pytest.mark.lab]

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())[
    "services"
]
NODES = ("cam-east", "cam-west", "hub")
#: All containers start at once.
START_S = 120.0


class ComposeMesh:
    """The services of the file on nodes of a lab."""

    def __init__(self, image: Image, lab: Lab) -> None:
        """Make the users, start Redis."""
        self.image, self.lab = image, lab
        self.users = lab.directory / "users"
        self.csv = lab.directory / "results" / "network_metrics.csv"
        make = [str(DOCKER / "redis/make-users.sh"), str(DOCKER / "redis/users.acl")]
        subprocess.run([*make, str(self.users)], check=True)
        self.csv.parent.mkdir()
        shutil.chown(self.csv.parent, *map(int, image.user))
        # Others may not look into the lab's folder; in an engine each volume is on its own.
        _, *options = [str(word) for word in SERVICES["redis"]["command"]]
        options = [word.replace("/run/users", str(self.users / "redis")) for word in options]
        argv = [tool("redis-server"), *options, "--dir", str(lab.directory)]
        self.redis = lab.redis_node.start(
            [*argv, "--protected-mode", "no"], log=lab.directory / "redis.log"
        )
        lab.redis_node.wait_until_listening(6379, deadline_s=START_S)

    def container(self, service: str, number: int) -> Container:
        """Give a service's container on a node of the lab, with what the file says of it."""
        told = SERVICES[service]
        variables = dict(told["environment"])
        url = variables["PTZMESH_REDIS_URL"]
        variables["PTZMESH_REDIS_URL"] = url.replace("@redis:", f"@{self.lab.redis_node.address}:")
        mounts = {}
        for volume in told["volumes"]:
            source, target, *_ = volume.split(":")
            if source.startswith("users-"):
                mounts[target] = self.users / source.removeprefix("users-")
            elif target == "/data":
                mounts[target] = self.csv.parent
        return Container(
            image=self.image,
            node=self.lab.nodes[number],
            folder=self.lab.directory,
            name=told.get("hostname", service),
            variables=variables,
            mounts=mounts,
            rights=Rights(net_raw="cap_add" in told, no_new_privileges="security_opt" in told),
        )

    def rows(self) -> list[str]:
        """Give the rows of the CSV."""
        return self.csv.read_text().splitlines()[1:] if self.csv.exists() else []


@pytest.fixture(scope="module")
def mesh(lab_image: Image) -> Iterator[ComposeMesh]:
    with Lab(len(NODES) + 1) as lab:
        yield ComposeMesh(lab_image, lab)


def test_mesh_of_the_compose_file_measures_itself_and_keeps_the_results(mesh: ComposeMesh) -> None:
    nodes = [mesh.container(name, number) for number, name in enumerate(NODES)]
    for node in nodes:
        node.start()
    collector = mesh.container("collector", len(NODES))
    collector.start(*SERVICES["collector"]["command"])
    for node in nodes:
        healthy = f"{node.name} is healthy"
        wait_until(lambda node=node: node.health().returncode == 0, healthy, START_S)
    # `docker compose run ptzmesh …`: another user, beside the collector, in a container of its own.
    shell = mesh.container("ptzmesh", len(NODES))
    probes = ("--probe", "ping", "--probe", "throughput", "--duration", "1")
    shell.start("run", "--json", "--count", "3", *probes)
    assert shell.process is not None
    assert shell.process.wait(300) == 0, shell.log.read_text()
    wait_until(lambda: len(mesh.rows()) == 12, "the collector has all rows", START_S)
    header = mesh.csv.read_text().splitlines()[0].split(",")
    outcome = header.index("outcome")
    assert {row.split(",")[outcome] for row in mesh.rows()} == {"ok"}
    refused = mesh.lab.redis_node.run(["grep", "-c", "NOPERM", str(collector.log)], check=False)
    assert refused.stdout.strip() == "0", collector.log.read_text()


def test_users_that_are_made_again_keep_their_passwords(mesh: ComposeMesh) -> None:
    def everything() -> dict[Path, str]:
        return {path: path.read_text() for path in mesh.users.rglob("*") if path.is_file()}

    before = everything()
    assert len({text for path, text in before.items() if path.name == "redis-password"}) >= 5
    make = [str(DOCKER / "redis/make-users.sh"), str(DOCKER / "redis/users.acl")]
    subprocess.run([*make, str(mesh.users)], check=True)
    assert everything() == before
