"""The manifests: valid, whole, closed, and with settings that ptzmesh has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.commands import check_command
from deploy.needs import DOCKER

FOLDER = DOCKER / "kubernetes"
#: The oldest that the validator has, which some fleets of k3s still run, and its newest.
VERSIONS = ("1.25", kubernetes_validate.latest_version())
UNPRIVILEGED = {"drop": ["ALL"]}
Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    """Give every manifest but kustomize's own."""
    files = [file for file in FOLDER.glob("*.yaml") if file.name != "kustomization.yaml"]
    return [one for file in sorted(files) for one in yaml.safe_load_all(file.read_text())]


def of_kind(kind: str) -> list[Manifest]:
    """Give the manifests of a kind."""
    return [one for one in manifests() if one["kind"] == kind]


def pods() -> list[tuple[str, Manifest]]:
    """Give what a pod is made of, by the name of what makes it."""
    makers = [*of_kind("DaemonSet"), *of_kind("Deployment")]
    return [(one["metadata"]["name"], one["spec"]["template"]["spec"]) for one in makers]


def container_of(pod: Manifest) -> Manifest:
    """Give a pod's one container."""
    (container,) = pod["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_one_that_kubernetes_takes(version: str) -> None:
    kinds = {one["kind"] for one in manifests()}
    assert kinds >= {"Namespace", "ConfigMap", "Secret", "DaemonSet", "Deployment"}
    for one in manifests():
        kubernetes_validate.validate(one, version, strict=True)


def test_kustomization_has_every_file_but_the_passwords() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    files = {file.name for file in FOLDER.glob("*.yaml")}
    assert set(kustomization["resources"]) == {
        name for name in files if name != "kustomization.yaml" and ".example." not in name
    }
    assert {one["metadata"].get("namespace", "ptzmesh") for one in manifests()} == {"ptzmesh"}
    images = {one["image"] for _, pod in pods() for one in pod["containers"]}
    assert images == {one["name"] for one in kustomization["images"]}


def test_whatever_a_pod_refers_to_is_there() -> None:
    (settings,), (secret,) = of_kind("ConfigMap"), of_kind("Secret")
    claims = {one["metadata"]["name"] for one in of_kind("PersistentVolumeClaim")}
    for _, pod in pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
        for volume in volumes.values():
            if "secret" in volume:
                assert volume["secret"]["secretName"] == secret["metadata"]["name"]
                assert {item["key"] for item in volume["secret"]["items"]} <= (
                    secret["stringData"].keys()
                )
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        for variable in container_of(pod)["env"]:
            if source := variable.get("valueFrom", {}).get("configMapKeyRef"):
                assert source["name"] == settings["metadata"]["name"]
                assert source["key"] in settings["data"]


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda value: str(value)[:17])
def test_command_and_settings_are_ones_that_ptzmesh_has(
    name: str, pod: Manifest, tmp_path: Path
) -> None:
    (settings,) = of_kind("ConfigMap")
    by_field = {"spec.nodeName": "edge-1.site", "status.hostIP": "10.0.0.7"}
    variables = {}
    for variable in container_of(pod)["env"]:
        source = variable.get("valueFrom", {})
        variables[variable["name"]] = (
            variable.get("value")
            or by_field.get(source.get("fieldRef", {}).get("fieldPath"))
            or settings["data"][source["configMapKeyRef"]["key"]]
        )
    check_command(container_of(pod)["args"], variables, tmp_path)
    password = Path(variables["PTZMESH_REDIS_PASSWORD_FILE"])
    (mount,) = [m for m in container_of(pod)["volumeMounts"] if m["name"] == "password"]
    (volume,) = [v for v in pod["volumes"] if v["name"] == "password"]
    assert mount["mountPath"] == str(password.parent)
    assert [item["path"] for item in volume["secret"]["items"]] == [password.name]
    assert pod["enableServiceLinks"] is False, name


def test_pods_run_as_the_user_of_the_image_with_as_few_rights_as_they_can_do_with() -> None:
    assert "USER 10001:10001" in (DOCKER / "Dockerfile").read_text().splitlines()
    for name, pod in pods():
        container = container_of(pod)
        own = {**pod["securityContext"], **container["securityContext"]}
        assert own["runAsNonRoot"] is True
        assert (own["runAsUser"], own["runAsGroup"]) == (10001, 10001)
        assert own["readOnlyRootFilesystem"] is True
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert "memory" in container["resources"]["limits"]
        pings = name == "ptzmesh-worker"
        added = {"add": ["NET_RAW"]} if pings else {}
        assert own["capabilities"] == {**UNPRIVILEGED, **added}
        # Without it a capability never reaches a process that is not root.
        assert own["allowPrivilegeEscalation"] is pings
        for one in pod.get("initContainers", []):
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}


def test_worker_that_waits_for_redis_is_shown_as_not_ready_and_not_restarted() -> None:
    worker = container_of(dict(pods())["ptzmesh-worker"])
    assert worker["readinessProbe"]["exec"]["command"] == ["ptzmesh", "doctor", "--quick"]
    assert "livenessProbe" not in worker


def test_collector_has_one_pod_a_file_and_a_group_at_any_time() -> None:
    (deployment,) = of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert "--group" in container_of(deployment["spec"]["template"]["spec"])["args"]
