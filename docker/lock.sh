#!/bin/sh
# Makes docker/*.lock anew from pyproject.toml: the newest releases that fit, with their hashes.
# Needs pip-tools 7, and the Python of Debian 12: what a package needs depends on the Python (redis
# needs async-timeout before 3.11.3). `docker/lock.sh --upgrade` takes newer releases than before.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-/usr/bin/python3}
"$python" -c 'import sys; sys.exit(sys.version_info[:3] != (3, 11, 2))' ||
  { echo "error: $python is not Debian 12's Python 3.11.2; set PYTHON" >&2; exit 2; }
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools"
"$tools/bin/pip" install --quiet 'pip-tools>=7.5,<8'
export CUSTOM_COMPILE_COMMAND=docker/lock.sh
compile() {
  "$tools/bin/pip-compile" --quiet --generate-hashes --strip-extras --allow-unsafe \
    --no-emit-options "$@" pyproject.toml
}
compile --output-file docker/requirements.lock "$@"
compile --output-file docker/build.lock --only-build-deps --build-deps-for wheel "$@"
