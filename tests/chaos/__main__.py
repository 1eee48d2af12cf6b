"""
Rounds of faults from a seed: `python -m chaos --rounds 20 --seed 7`, in the folder `tests`.

Prints the seed first, then a line a round; a round that does not hold says how it is repeated. At
the end a table of all that was survived. Needs what the lab needs: root, iproute2, nftables.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from random import SystemRandom

from lab.namespaces import why_unusable

from chaos.faults import KINDS
from chaos.rounds import LONG, SHORT, Survived, draw, hold

#: Under this name a test reports the line of its round.
SURVIVED = "survived"


def main() -> int:
    """Run the rounds; 0 when all held, 1 when one did not, 2 when there can be no lab."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--short", action="store_true", help="short faults only")
    parser.add_argument("--keep-going", action="store_true", help="after a round that did not hold")
    said = parser.parse_args()
    if (reason := why_unusable()) is not None:
        print(reason, file=sys.stderr)
        return 2
    print(f"seed {said.seed}", flush=True)
    survived, failed = [], []
    for number in range(said.first, said.first + said.rounds):
        drawn = draw(said.seed, number, SHORT if said.short else LONG)
        try:
            survived.append(hold(drawn))
            print(line_of(survived[-1]), flush=True)
        except AssertionError as exc:
            failed.append(number)
            print(
                f"{exc}\nround {number} did not hold; repeat it with:\n  "
                f"{how_to_repeat(said.seed, number, said.short)}",
                flush=True,
            )
            if not said.keep_going:
                break
    print(table_of(survived))
    print(f"{len(survived)} rounds held, {len(failed)} did not {failed or ''}")
    return 1 if failed else 0


def how_to_repeat(seed: int, number: int, short: bool = False) -> str:
    """Give the command that repeats one round, in the project's folder."""
    words = f"--seed {seed} --first {number} --rounds 1{' --short' if short else ''}"
    return f"make chaos CHAOS='{words}'"


def line_of(one: Survived) -> str:
    """Say what a round survived."""
    kinds = ", ".join(fault.kind for fault in one.drawn.faults if fault.happened) or "nothing"
    outcomes = ", ".join(f"{name} {count}" for name, count in one.outcomes.most_common())
    where = f"round {one.drawn.number}: held in {one.took_s:.0f} s"
    return f"{where}; {one.runs} runs, {outcomes or 'no rows'}; {kinds}"


def table_of(survived: list[Survived]) -> str:
    """Give a table: kind of fault, how often it was injected, runs and rows of those rounds."""
    times: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for one in survived:
        happened = [fault.kind for fault in one.drawn.faults if fault.happened]
        times.update(happened)
        for kind in set(happened):
            runs[kind] += one.runs
            rows[kind] += one.outcomes.total()
    lines = [f"{'fault':28} {'times':>6} {'runs':>6} {'rows':>7}"]
    lines += [f"{k:28} {times[k]:6} {runs[k]:6} {rows[k]:7}" for k in KINDS]
    all_rows = sum(one.outcomes.total() for one in survived)
    total = f"{times.total():6} {sum(one.runs for one in survived):6} {all_rows:7}"
    return "\n".join([*lines, f"{'all':28} {total}"])


if __name__ == "__main__":
    begun = time.monotonic()
    code = main()
    print(f"{time.monotonic() - begun:.0f} s")
    sys.stdout.flush()
    sys.exit(code)
