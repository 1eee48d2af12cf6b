"""
Mounts, waits for the probe, unmounts: what a program with measured mounts does on a node.

    python sshfs_program.py FORM HOST KEY REMOTE LOCAL CSV

`FORM` is `old` or `new`. Prints one JSON object; a line `mounted` before it waits for `go`.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from ptzjepa import NewMounter, OldMounter

from worker.monitor import configure, measured_mounts, process, save_network_stats_to_csv
from worker.monitor.mounts.probing import probes

OPTIONS = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
DEADLINE_S = 120.0


def main() -> None:
    form, host, key, remote, local, csv_path, wait_for_probe = sys.argv[1:]
    kind: Any = {"old": OldMounter, "new": NewMounter}[form]
    kind.options = OPTIONS
    configure(csv_path=csv_path)
    mounter = measured_mounts(kind)("root", host, remote, local, key)
    mounted = mounter.mount()
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
    sys.stdin.readline()
    if mounted and wait_for_probe == "yes":
        _wait_for("probe")
    begun = time.monotonic()
    unmounted = mounter.unmount()
    told = {"mounted": mounted, "unmounted": unmounted, "unmount_s": time.monotonic() - begun}
    if mounted:
        _wait_for("probe")
        _wait_for("after_mount")
    save_network_stats_to_csv(csv_path)
    sys.stdout.write(json.dumps(told | {"records": _recorded(), "left": sorted(probes.leaving)}))


_seen: list[dict[str, Any]] = []


def _recorded() -> list[dict[str, Any]]:
    return _seen


def _wait_for(operation: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        entries = list(process.recorder()._for_csv)
        _seen[:] = [entry.measurement.to_json() for entry in entries]
        if any(one.get("operation") == operation for one in _seen):
            return
        time.sleep(0.02)
    raise TimeoutError(operation)


if __name__ == "__main__":
    main()
