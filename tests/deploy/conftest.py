"""The image, built once for all tests that look at it or run it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from lab.namespaces import why_unusable

from deploy.image import Image, built
from deploy.needs import missing, tool


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image; building it takes a minute."""
    if os.geteuid() != 0:
        missing("to build the image without an engine needs root")
    for name in ("debootstrap", "buildah"):
        tool(name)
    with built() as image:
        yield image


@pytest.fixture(scope="session")
def lab_image(image: Image) -> Image:
    """The image, where there is a lab to run it in."""
    if reason := why_unusable():
        missing(reason)
    return image
