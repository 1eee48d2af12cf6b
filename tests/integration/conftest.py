"""The path of a CSV; a mesh for the commands of the documentation, one for each file of tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from coordinator.embedded import embedded_server
from integration.docs_pages import adapt, start
from integration.nodes import cli as run_cli
from integration.nodes import workers

#: Of the fixture; the examples use these names.
NODES = ("cam-1", "hub", "cam-east")


@pytest.fixture
def csv_path(tmp_path: Path) -> Path:
    """Where a collector writes."""
    return tmp_path / "network_metrics.csv"


@pytest.fixture(scope="module")
def ahead(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.Popen[str]]:
    """The demos that will be tried, all under way: each has a Redis and nodes of its own."""
    chosen = [
        item.callspec.params["command"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.path == request.path
        and "command" in getattr(getattr(item, "callspec", None), "params", {})
    ]
    demos = [command for command in chosen if command.startswith("ptzmesh demo")]
    return {one: start(adapt(one, "", ""), tmp_path_factory.mktemp("demo"), "") for one in demos}


@pytest.fixture(scope="module")
def mesh_folder(
    server_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Nodes with the names and labels that the examples use, and a folder to work in."""
    folder = tmp_path_factory.mktemp("docs")
    with embedded_server(folder, binary=server_binary, unix=False) as server:
        connection = redis.Redis.from_url(server.url)
        # `doctor --between` would end another test's iperf3 server, which takes one client.
        more = ["--label", "site=roof", "--ports", "5301-5316"]
        with workers(server.url, connection, folder, NODES, more):
            csv = str(folder / "network_metrics.csv")
            assert run_cli(server.url, "run", "--count", "2").returncode == 0
            assert run_cli(server.url, "collect", "--csv", csv).returncode == 0
            yield server.url, folder
