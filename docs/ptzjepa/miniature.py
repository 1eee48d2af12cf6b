#!/usr/bin/env python3
"""
PTZJEPA's loop in miniature: its arguments, lockers, mount and cycle, with the monitor in place.

    python docs/ptzjepa/miniature.py -rm lifelong -dist -dist_ip 10.0.0.1 -nm --cycles 3

Nothing is trained: each step sleeps a little. Redis is the one of `configs/Config_file.yaml`, in
the current folder. Without `-dist` there are neither lockers nor a mount, as in PTZJEPA itself.
Lines that PTZJEPA does not have are marked `# monitor`.
"""

from __future__ import annotations

import argparse
import logging
import random
import subprocess
import time
from pathlib import Path

from worker.monitor import (  # monitor
    MultiLockerSystem,
    NetworkMonitor,
    add_network_arguments,
    measured_mounts,
    monitor_from_arguments,
    timeit,
)
from worker.monitor.ptzjepa.config import PLACE, read_section

logger = logging.getLogger("miniature")

MODELS = 4
#: A training of hours, here.
STEP_S = 0.3


@measured_mounts  # monitor
class SSHFSMounter:
    """Mounts the server's folder of models."""

    def __init__(
        self,
        host_username: str,
        host_ip: str,
        host_data_directory: str,
        local_data_directory: str,
        identity_file: str = "/root/.ssh/id_rsa",
    ) -> None:
        """Describe the mount."""
        self.source = f"{host_username}@{host_ip}:{host_data_directory}"
        self.local_data_directory = local_data_directory
        self.identity_file = identity_file

    def mount(self) -> bool:
        """Mount; False when that does not work."""
        Path(self.local_data_directory).mkdir(parents=True, exist_ok=True)
        options = ["-o", f"IdentityFile={self.identity_file}", "-o", "BatchMode=yes"]
        argv = ["sshfs", self.source, self.local_data_directory, *options]
        try:
            return subprocess.run(argv, capture_output=True, timeout=30).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    def unmount(self) -> bool:
        """Unmount."""
        argv = ["fusermount", "-u", self.local_data_directory]
        try:
            return subprocess.run(argv, check=False, capture_output=True).returncode == 0
        except OSError:
            return False


def get_argparser() -> argparse.ArgumentParser:
    """Build PTZJEPA's parser, as far as the loop looks at it."""
    parser = argparse.ArgumentParser("PTZ JEPA in miniature")
    parser.add_argument("-rm", "--run_mode", default="lifelong", choices=["lifelong"])
    parser.add_argument("-dist", "--distributed", action="store_true")
    parser.add_argument("-dist_ip", "--distributed_ip", default="127.0.0.1")
    parser.add_argument("-dist_username", "--distributed_username", default="root")
    parser.add_argument("-dist_host_directory", "--distributed_host_directory", default="/data")
    parser.add_argument("--persistence", default="/persistence", help="folder of what lasts")
    parser.add_argument("--cycles", type=int, default=3, help="PTZJEPA itself never ends")
    add_network_arguments(parser)  # monitor
    return parser


@timeit("prepare_images")  # monitor
def prepare_images() -> None:
    """Stand for the camera's work."""
    time.sleep(STEP_S)


@timeit("run_jepa")  # monitor
def run_jepa(lockers: MultiLockerSystem | None) -> None:
    """Train a model that nobody else trains now: pick numbers until one is free."""
    if lockers is None:
        time.sleep(STEP_S)
        return
    while (model := lockers.acquire_locker(random.randrange(MODELS))) is None:  # noqa: S311
        logger.info("the model is another's, picking again")
    try:
        time.sleep(STEP_S)
    finally:
        if not lockers.release_locker(model):
            logger.warning("model %d was no longer ours", model)


def lifelong_learning(arguments: argparse.Namespace, monitor: NetworkMonitor) -> None:
    """Run cycle after cycle."""
    lockers, mounter = connect(arguments) if arguments.distributed else (None, None)
    if mounter is not None and not mounter.mount():
        logger.warning("models are kept on this machine: the server's folder is not mounted")
    try:
        for cycle in range(1, arguments.cycles + 1):
            prepare_images()
            for name in ("world_model", "dreamer"):
                with monitor.activity(name):  # monitor
                    run_jepa(lockers)
            monitor.cycle(cycle)  # monitor
            logger.info("cycle %d done", cycle)
    finally:
        if mounter is not None:
            mounter.unmount()


def connect(arguments: argparse.Namespace) -> tuple[MultiLockerSystem, SSHFSMounter]:
    """Connect to what the distributed mode shares: lockers and the folder of models."""
    section = read_section(PLACE.read_text())
    lockers = MultiLockerSystem(
        section["host"],
        int(section["port"]),
        section.get("password"),
        "file_lockers",
        MODELS,
        expire_in_sec=int(section.get("locker_expiration", "36000")),
    )
    mounter = SSHFSMounter(
        arguments.distributed_username,
        arguments.distributed_ip,
        arguments.distributed_host_directory,
        str(Path(arguments.persistence, "models")),
    )
    return lockers, mounter


def main() -> None:
    """Read the arguments and begin."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    arguments = get_argparser().parse_args()
    csv_path = Path(arguments.persistence, "network_metrics.csv")
    with monitor_from_arguments(arguments, csv_path=csv_path) as monitor:  # monitor
        lifelong_learning(arguments, monitor)


if __name__ == "__main__":
    main()
