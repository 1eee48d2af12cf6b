"""Each dependency has a lower bound, which `make test-oldest` installs."""

from __future__ import annotations

from pathlib import Path

from oldest import oldest

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_every_dependency_is_held_to_its_lower_bound() -> None:
    held = {one.partition("==")[0] for one in oldest(PYPROJECT.read_text())}
    assert {"click", "msgpack", "redis", "rich", "rq"} <= held
    assert oldest('[project]\ndependencies = ["rq>=3.0,<4", "tomli>=2; a < \'b\'"]') == [
        "rq==3.0",
        "tomli==2; a < 'b'",
    ]
