"""
Fuzz one parser, guided by coverage: `python tests/fuzz/run.py PARSER [libFuzzer's options]`.

Needs atheris. Without options of its own it ends after a minute; `-max_total_time` says otherwise.
What breaks a parser is written to the present folder. `--list` gives the parsers.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> None:
    import atheris

    # First what belongs to others, so that only our own code is instrumented.
    import click
    import msgpack
    import redis
    import rich
    import rq

    assert all((click, msgpack, redis, rich, rq))
    with atheris.instrument_imports(include=["worker", "coordinator"]):
        from fuzz import seeds, targets
    if sys.argv[1:2] == ["--list"]:
        sys.stdout.write("\n".join(targets.TARGETS) + "\n")
        return
    parser, options = sys.argv[1], sys.argv[2:]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    corpus = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for number, seed in enumerate(seeds.seeds()[parser]):
        (corpus / str(number)).write_bytes(seed)
    limits = ["-max_total_time=60", f"-max_len={targets.MAX_INPUT_BYTES}", "-rss_limit_mb=1024"]
    arguments = [sys.argv[0], *limits, "-timeout=5", "-print_final_stats=1", *options, str(corpus)]
    atheris.Setup(arguments, targets.TARGETS[parser])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
