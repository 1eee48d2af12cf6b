"""The command-line arguments that PTZJEPA gets, and the monitor that they ask for."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from worker.model.errors import ConfigError
from worker.monitor.guard import log_once, never_raises
from worker.monitor.network.hosts import distinct, parse_hosts
from worker.monitor.network.loop import DEFAULT_INTERVAL_S, MIN_INTERVAL_S, NetworkMonitor
from worker.monitor.process import configure, configured_redis
from worker.monitor.ptzjepa.config import find_config, redis_url_from


def add_network_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add our options; none of PTZJEPA's begins with the same letters."""
    group = parser.add_argument_group("network monitoring")
    beside = "measure the network beside the program"
    group.add_argument("-nm", "--network_monitoring", action="store_true", help=beside)
    pause = "seconds between two measurements (default: %(default)s)"
    group.add_argument(
        "-ni", "--network_interval", type=_seconds, default=int(DEFAULT_INTERVAL_S), help=pause
    )
    others = "hosts to measure as well, with commas between"
    group.add_argument("-nh", "--network_hosts", type=_host_list, default="", help=others)
    group.add_argument(
        "--network_redis",
        metavar="URL",
        help="Redis that gets the records; a password belongs in PTZMESH_REDIS_URL, not here "
        "(default: PTZMESH_REDIS_URL, REDIS_URL, or the configuration file's)",
    )
    return parser


def monitor_from_arguments(
    args: argparse.Namespace,
    *,
    config_path: Path | str | None = None,
    csv_path: Path | str | None = None,
) -> NetworkMonitor:
    """
    Build the monitor that the arguments ask for, not started yet.

    Without `-nm` it measures nothing, but can be used all the same.

    Args:
        args: From the parser; `distributed` and `distributed_ip` are PTZJEPA's.
        config_path: PTZJEPA's YAML file; None looks where it is.
        csv_path: File of the records.
    """
    if not getattr(args, "network_monitoring", False):
        return _Silent([], csv_path=csv_path)
    _configure(args, config_path, csv_path)
    interval_s = getattr(args, "network_interval", DEFAULT_INTERVAL_S)
    return NetworkMonitor(_hosts(args), interval_s, csv_path=csv_path)


class _Silent(NetworkMonitor):
    """A monitor that was not asked for: its tags are kept, and nothing else happens."""

    def _start(self) -> None:
        pass


@never_raises(lambda: None)
def _configure(
    args: argparse.Namespace, config_path: Path | str | None, csv_path: Path | str | None
) -> None:
    url = getattr(args, "network_redis", None) or configured_redis()
    path = Path(config_path) if config_path else find_config()
    if not url and path is not None:
        try:
            url = redis_url_from(path)
        except ConfigError as exc:
            log_once("config", "monitor: records are not published: %s", exc)
    configure(redis_url=url, csv_path=csv_path)


@never_raises(tuple[str, ...])
def _hosts(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the server's address when distributed, then the others."""
    server = getattr(args, "distributed", False) and getattr(args, "distributed_ip", None)
    named = parse_hosts(getattr(args, "network_hosts", "") or "")
    return distinct((str(server), *named) if server else named)


def _host_list(text: str) -> str:
    try:  # it stays text, as PTZJEPA's own would
        return ",".join(parse_hosts(text))
    except ConfigError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _seconds(text: str) -> int:
    with suppress(ValueError):
        if (seconds := int(text)) >= MIN_INTERVAL_S:
            return seconds
    rule = f"must be a whole number of seconds, {MIN_INTERVAL_S:.0f} or more"
    raise argparse.ArgumentTypeError(f"interval ({text!r}) {rule}")
