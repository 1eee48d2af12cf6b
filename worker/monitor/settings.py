"""
The monitor's settings: argument over environment over default.

`load_settings` is the package's only reader of the environment, and never refuses: a wrong setting
is a log line and the default.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from worker.model.errors import ConfigError
from worker.model.names import REDIS_TARGET, NodeName, own_name
from worker.monitor.guard import log_once
from worker.wire.connection import redis_url

#: Where PTZJEPA keeps everything that lasts.
DEFAULT_CSV = Path("/persistence/network_metrics.csv")
NODE_VARIABLE, CSV_VARIABLE = "PTZMESH_NODE", "PTZMESH_METRICS_CSV"


@dataclass(frozen=True, kw_only=True)
class MonitorSettings:
    """
    Where this process's records come from and go to.

    Attributes:
        source: Name of this node in every record.
        redis_url: Redis whose results stream gets the records; None publishes nothing.
        csv_path: File for the monitor's loop; `save_network_stats_to_csv` may name another.
    """

    source: NodeName
    redis_url: str | None = field(default=None, repr=False)
    csv_path: Path = DEFAULT_CSV


def load_settings(
    environ: Mapping[str, str],
    *,
    source: str | None = None,
    redis_url: str | None = None,
    csv_path: Path | None = None,
) -> MonitorSettings:
    """Read the settings; an argument that is None asks the environment."""
    return MonitorSettings(
        source=_name(source or environ.get(NODE_VARIABLE)),
        redis_url=_redis(environ, redis_url),
        csv_path=csv_path or Path(environ.get(CSV_VARIABLE) or DEFAULT_CSV),
    )


def url_of(host: str, port: int | str, password: str | None) -> str:
    """
    Build the URL of a Redis from what PTZJEPA has of it.

    >>> url_of("::1", 6379, "a@b")
    'redis://:a%40b@[::1]:6379/0'
    """
    secret = f":{quote(str(password), safe='')}@" if password else ""
    return f"redis://{secret}{f'[{host}]' if ':' in host else host}:{port}/0"


def _redis(environ: Mapping[str, str], asked: str | None) -> str | None:
    """Complete the URL with the environment's password and TLS; None when it is wrong."""
    url = asked or next(filter(None, map(environ.get, redis_url.URL_VARIABLES)), None)
    if url is None:
        return None
    given = redis_url.credentials_from(environ)
    try:
        if asked and redis_url.secrets_of(redis_url.split(asked)):
            given = replace(given, password=None, password_file=None)  # argument over environment
        return redis_url.with_credentials(url, given)
    except ConfigError as exc:
        log_once("redis", "monitor: records are not published: %s", exc)
        return None


def _name(asked: str | None) -> NodeName:
    if asked:
        try:
            return own_name(asked)
        except ConfigError as exc:
            log_once(f"name/{asked}", "monitor: %s; the host name is used", exc)
    return name_from_host(socket.gethostname())


def name_from_host(host: str) -> NodeName:
    """
    Turn a host name, which may have any characters, into a node's name.

    >>> name_from_host("edge 7."), name_from_host("---")
    ('edge-7', 'unnamed')
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "-", host)[:64].strip("._-") or "unnamed"
    return NodeName(f"{name}-host" if name == REDIS_TARGET else name)
