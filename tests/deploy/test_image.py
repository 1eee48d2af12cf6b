"""What is in the image, and what is not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy.image import Image
from deploy.needs import ROOT

pytestmark = pytest.mark.long

#: 10^6 bytes of layers, unpacked, above those of Debian.
MOST_ABOVE_BASE_MB = 150.0

CAPABLE = "/opt/ptzmesh/bin/python3-net-raw"


def files(image: Image) -> list[Path]:
    """Give every regular file of the image."""
    found = []
    for folder, _, names in os.walk(image.root):
        found += [Path(folder, name) for name in names]
    return [path for path in found if path.is_file() and not path.is_symlink()]


def test_every_program_and_library_is_of_the_architecture_that_the_image_is_for(
    image: Image,
) -> None:
    machines = {}
    for path in files(image):
        with path.open("rb") as file:
            header = file.read(20)
        if header.startswith(b"\x7fELF"):
            machines[str(path.relative_to(image.root))] = int.from_bytes(header[18:20], "little")
    assert set(machines.values()) == {image.architecture.elf_machine}
    assert {CAPABLE.lstrip("/"), "usr/bin/iperf3", "usr/bin/tini"} <= set(machines)
    assert any("/msgpack/_cmsgpack." in name for name in machines), "the codec is not compiled"
    assert any("/hiredis/hiredis." in name for name in machines), "the parser is not compiled"


def test_image_is_small_above_the_debian_that_it_is_made_on(image: Image) -> None:
    above = image.size_mb - image.base_mb
    assert 0 < above < MOST_ABOVE_BASE_MB, f"{above:.0f} MB"


def test_no_program_of_the_image_gains_a_right_but_the_one_interpreter(image: Image) -> None:
    every = files(image)
    assert len(every) > 1000
    assert [path for path in every if path.stat().st_mode & 0o6000] == []
    capable = [path for path in every if "security.capability" in os.listxattr(path)]
    assert capable == [image.root / CAPABLE.lstrip("/")]
    said = subprocess.run(["getcap", capable[0]], capture_output=True, text=True, check=True)
    assert said.stdout.strip().endswith(" cap_net_raw=ep")


def test_user_of_the_image_is_not_root_and_owns_only_what_it_must_write(image: Image) -> None:
    uid, gid = image.user
    assert (uid, gid) == ("10001", "10001")
    walked = [Path(folder) for folder, _, _ in os.walk(image.root)] + files(image)
    owned = {f"/{path.relative_to(image.root)}" for path in walked if path.stat().st_uid == 10001}
    assert owned == {"/var/lib/ptzmesh", "/data"}


def test_image_brings_no_installer_and_no_source_of_ours_twice(image: Image) -> None:
    names = {str(path.relative_to(image.root)) for path in files(image)}
    assert not any(name.endswith(("/pip", "/setuptools/__init__.py", "/gcc")) for name in names)
    assert [name for name in names if name.endswith("worker/node/supervisor.py")] == [
        "opt/ptzmesh/lib/python3.11/site-packages/worker/node/supervisor.py"
    ]
    assert not any(name.startswith(("source/", "wheel/", "locks/", "build/")) for name in names)


def test_every_module_of_ours_is_compiled_as_the_file_system_may_be_read_only(image: Image) -> None:
    site = image.root / "opt/ptzmesh/lib/python3.11/site-packages"
    for package in ("worker", "coordinator"):
        modules = sorted((site / package).rglob("*.py"))
        assert len(modules) == len(list((ROOT / package).rglob("*.py")))
        lacking = [
            path
            for path in modules
            if not (path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc").exists()
        ]
        assert lacking == []


def test_image_says_what_it_is_and_how_it_ends(image: Image) -> None:
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "ptzmesh"
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["Entrypoint"] == ["tini", "--", "ptzmesh"]
    assert image.config["Healthcheck"]["Test"][0] == "CMD", "a shell would not get the signal"
    assert list(image.config["Volumes"]) == ["/var/lib/ptzmesh"]
