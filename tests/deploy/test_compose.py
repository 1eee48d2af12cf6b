"""The compose files: valid, complete, closed, and with settings that ptzmesh has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.commands import check_command, examples
from deploy.needs import DOCKER, missing

FILES = sorted(DOCKER.glob("compose*.yaml"))
USERS = set(re.findall(r"^user (\w+) ", (DOCKER / "redis/users.acl").read_text(), re.MULTILINE))


def services(file: Path) -> dict[str, dict[str, Any]]:
    """Give a file's services, with what they take from others."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["services"]
    return found


def ours(file: Path) -> dict[str, dict[str, Any]]:
    """Give the services that run our image."""
    return {name: one for name, one in services(file).items() if one["image"] == "ptzmesh"}


def variables(service: dict[str, Any]) -> dict[str, str]:
    """Give a service's variables; those of an environment file are its example's."""
    found = dict(service.get("environment", {}))
    for file in service.get("env_file", []):
        found |= examples(DOCKER / f"{file}.example")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_is_one_that_compose_takes(file: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(DOCKER, tmp_path / "docker")
    for example in folder.glob("*.env.example"):
        example.rename(example.with_suffix(""))
    copy = folder / file.name
    if compose := shutil.which("docker-compose"):
        argv = [compose]
        copy.write_text(re.sub(r"^name: .*\n", "", copy.read_text(), flags=re.MULTILINE))
    elif docker := shutil.which("docker"):
        argv = [docker, "compose"]
    else:
        missing("docker-compose is not installed")
    argv += ["--file", str(copy), "config", "--services"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    always = {name for name, one in services(file).items() if not one.get("profiles")}
    assert always <= set(done.stdout.split())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_commands_and_settings_are_ones_that_ptzmesh_has(file: Path, tmp_path: Path) -> None:
    found = ours(file)
    assert found
    for service in found.values():
        check_command(service.get("command", ["worker"]), variables(service), tmp_path)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_that_is_mounted_or_read_is_there_or_said_to_be_made(file: Path) -> None:
    page = (DOCKER.parent / "docs" / "install.md").read_text()
    for service in services(file).values():
        assert all((DOCKER / f"{name}.example").exists() for name in service.get("env_file", []))
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("./"):
                assert (DOCKER / source).exists(), source
            elif source.startswith("/"):
                assert source in page, f"docs/install.md does not say who makes {source}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_service_has_as_few_rights_as_it_can_do_with(file: Path) -> None:
    for name, service in services(file).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        is_node = service["image"] == "ptzmesh" and service.get("command", ["worker"]) == ["worker"]
        assert service.get("cap_add", []) == (["NET_RAW"] if is_node else []), name
        if not is_node:
            assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "ports" not in service, f"{name} can be reached from outside"
        assert "privileged" not in service, name
        assert "max-size" in service["logging"]["options"], f"{name} can fill the disk"
        if service.get("restart") != "no" and name != "users":
            assert service["restart"] == "unless-stopped", name
            assert {"mem_limit", "pids_limit"} <= service.keys(), name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_user_of_redis_is_in_the_acl_file_and_no_password_is_in_sight(file: Path) -> None:
    assert {"worker", "trigger", "collector"} <= USERS
    for service in ours(file).values():
        (user,) = re.findall(r"^redis://([^@]*)@", variables(service)["PTZMESH_REDIS_URL"])
        assert user in USERS
        assert not any("PASSWORD" in name for name in variables(service) if "FILE" not in name)


def test_nodes_of_the_mesh_have_names_that_outlive_their_containers() -> None:
    nodes = {
        name: one["hostname"] for name, one in ours(DOCKER / "compose.yaml").items()
        if "cap_add" in one
    }  # fmt: skip
    assert nodes == {name: name for name in ("cam-east", "cam-west", "hub")}


def test_service_sees_the_password_of_its_own_user_only() -> None:
    for service in ours(DOCKER / "compose.yaml").values():
        (user,) = re.findall(r"//([^@]*)@", service["environment"]["PTZMESH_REDIS_URL"])
        mounted = [one for one in service["volumes"] if one.startswith("users")]
        assert mounted == [f"users-{user}:/run/secrets:ro"]
