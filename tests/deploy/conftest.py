"""
The image, built once for all tests that look at it or run it.

`--architecture` chooses which; another than this machine's is emulated, and takes minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from lab.namespaces import why_unusable

from deploy.emulation import ARCHITECTURES, native, runnable
from deploy.image import Image, built
from deploy.needs import missing, tool


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--architecture",
        choices=ARCHITECTURES,
        help="architecture of the image that is tested; default: this machine's",
    )


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Iterator[Image]:
    """The image; building it takes a minute."""
    chosen: str | None = request.config.getoption("--architecture", default=None)
    architecture = ARCHITECTURES[chosen] if chosen else native()
    if os.geteuid() != 0:
        missing("to build the image without an engine needs root")
    for name in ("debootstrap", "buildah"):
        tool(name)
    with runnable(architecture), built(architecture) as image:
        yield image


@pytest.fixture(scope="session")
def lab_image(image: Image) -> Image:
    """The image, where there is a lab to run it in."""
    if reason := why_unusable():
        missing(reason)
    return image
