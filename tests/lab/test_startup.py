"""A worker that starts before its network, as at the boot of an edge node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from waiting import wait_until

from lab.mesh import LabMesh
from lab.net import Lab

pytestmark = pytest.mark.lab


@pytest.fixture
def mesh() -> Iterator[LabMesh]:
    with Lab(1, redis=True) as lab:
        made = LabMesh(lab)
        yield made
        made.close()


def test_a_worker_that_starts_without_a_link_waits_and_is_a_node_once_there_is_one(
    mesh: LabMesh,
) -> None:
    (node,) = mesh.lab.nodes
    links = ["ip", "link", "set", "dev", "eth0"]
    node.run([*links, "down"])
    worker = mesh.start(node)
    log = mesh.log(node.name)
    wait_until(lambda: "waiting for Redis" in log.read_text(), "it says that it waits")
    assert "unreachable" in log.read_text()
    assert worker.poll() is None
    node.run([*links, "up"])
    node.wait_for_links()
    mesh.wait_until_alive(node.name)
    assert log.read_text().count("waiting for Redis") == 1
