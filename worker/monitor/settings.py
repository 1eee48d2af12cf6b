"""
What the monitor is told about its place: who measures, where records go.

Argument over environment over default. `load_settings` is the package's only reader of the
environment, and never refuses: a wrong setting is a log line and the default.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worker import wire
from worker.errors import ConfigError
from worker.monitor.guard import tell

#: Where PTZJEPA keeps everything that lasts.
DEFAULT_CSV = Path("/persistence/network_metrics.csv")
NODE_VARIABLE, CSV_VARIABLE = "PTZMESH_NODE", "PTZMESH_METRICS_CSV"
REDIS_VARIABLES = ("PTZMESH_REDIS_URL", "REDIS_URL")


@dataclass(frozen=True, kw_only=True)
class MonitorSettings:
    """
    Where this process's records come from and go to.

    Attributes:
        source: Name of this node in every record.
        redis_url: Redis whose results stream gets the records; None publishes nothing.
        csv_path: File for the monitor's loop; `save_network_stats_to_csv` may name another.
    """

    source: str
    redis_url: str | None = field(default=None, repr=False)
    csv_path: Path = DEFAULT_CSV


def load_settings(
    environ: Mapping[str, str],
    *,
    source: str | None = None,
    redis_url: str | None = None,
    csv_path: Path | None = None,
) -> MonitorSettings:
    """Put the settings together; an argument that is None asks the environment."""
    urls = (redis_url, *(environ.get(name) for name in REDIS_VARIABLES))
    return MonitorSettings(
        source=_name(source or environ.get(NODE_VARIABLE)),
        redis_url=next((url for url in urls if url), None),
        csv_path=csv_path or Path(environ.get(CSV_VARIABLE) or DEFAULT_CSV),
    )


def _name(asked: str | None) -> str:
    if asked:
        try:
            return wire.valid_name(asked)
        except ConfigError as exc:
            tell(f"name/{asked}", "monitor: %s; the host name is used", exc)
    return name_from_host(socket.gethostname())


def name_from_host(host: str) -> str:
    """
    Make a node's name of a host name, which may have any characters.

    >>> name_from_host("edge 7."), name_from_host("---")
    ('edge-7', 'unnamed')
    """
    return re.sub(r"[^A-Za-z0-9._-]", "-", host)[:64].strip("._-") or "unnamed"
