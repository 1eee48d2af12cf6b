"""The mesh's side: plans, triggers, reads."""

from __future__ import annotations

#: As of typing, which takes longer to import than all that comes before Ctrl-C is heard.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from coordinator.mesh import Mesh, MeshRun

__all__ = ["Mesh", "MeshRun"]


def __getattr__(name: str) -> Any:
    """Import the interface when it is asked for: `ptzmesh --help` needs none of it."""
    if name in __all__:
        from coordinator import mesh

        return getattr(mesh, name)
    raise AttributeError(name)
