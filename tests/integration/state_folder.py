"""Print how doctor finds a state folder, from within the mount namespace of a test."""

import json
import sys
from pathlib import Path

from coordinator.checks.machine import state_folder

if __name__ == "__main__":
    check = state_folder(Path(sys.argv[1]), wanted=True)
    sys.stdout.write(json.dumps([check.status.value, check.fix]))
