"""
One round: a mesh, runs and faults drawn from a seed, and what must hold afterwards.

The seed draws what happens and when; how the machine's own schedule meets it is not repeatable, so
a failure may need its seed more than once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from traceback import format_exception

from lab.redis_server import Persist
from waiting import go_on_waiting

from chaos import checks, clock
from chaos.faults import COPY, HARMLESS, KINDS, LOSS, Fault
from chaos.mesh import ChaosMesh, chaos_mesh

#: What needs a wall clock of each node, and what a small disk.
CLOCKS = ("clock +1 h", "clock -1 h")
OUTBOX, CSV = "disk full under the outbox", "disk full under the CSV"


@dataclass(frozen=True)
class Form:
    """
    How long rounds are.

    Attributes:
        begins_s: Faults begin within this time, runs in its first quarter.
        lasts_s: Shortest and longest time of a fault, each with its weight.
        echoes: Fewest and most echoes of a run.
        faults: Fewest and most faults.
    """

    begins_s: float
    lasts_s: tuple[tuple[float, float, int], ...]
    echoes: tuple[int, int]
    faults: tuple[int, int]


SHORT = Form(begins_s=5, lasts_s=((0.5, 4, 1),), echoes=(20, 50), faults=(2, 4))
LONG = Form(
    begins_s=20,
    lasts_s=((0.5, 5, 3), (5, 20, 2), (45, 55, 2)),
    echoes=(10, 150),
    faults=(2, 6),
)


@dataclass(frozen=True)
class RunDrawn:
    """A run that is triggered: when, from which machine, and with which options."""

    at_s: float
    machine: int
    options: tuple[str, ...]


@dataclass
class Round:
    """What a seed says about one round."""

    seed: int
    number: int
    nodes: int
    persist: Persist
    runs: list[RunDrawn]
    faults: list[Fault]

    @property
    def kinds(self) -> set[str]:
        """The kinds of its faults."""
        return {fault.kind for fault in self.faults}

    @property
    def disks(self) -> list[str]:
        """Nodes whose state is on a small disk, and `csv`."""
        found = {fault.node for fault in self.faults if fault.kind == OUTBOX}
        return sorted(found | ({"csv"} if CSV in self.kinds else set()))

    @property
    def must_be_ok(self) -> set[str]:
        """Probes of which every row must have a result: nothing happened that could cost one."""
        longest = max(fault.lasts_s for fault in self.faults)
        return {"ping"} if self.kinds <= HARMLESS and longest < 20 else set()

    def __str__(self) -> str:
        """All that is drawn, a line each."""
        head = f"round {self.number} of seed {self.seed}: {self.nodes} nodes, Redis keeps"
        runs = [f"{one.at_s:5.1f} s run from {one.machine}: {one.options}" for one in self.runs]
        return "\n".join([f"{head} {self.persist}", *runs, *map(str, self.faults)])


@dataclass
class Survived:
    """What a round that held has to report."""

    drawn: Round
    runs: int
    outcomes: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0


def draw(seed: int, number: int, form: Form) -> Round:
    """Draw a round; the same for the same arguments, whatever was drawn before."""
    dice = Random(f"{seed}/{number}")
    nodes = dice.choice((3, 4))
    faults = [_fault(dice, nodes, form) for _ in range(dice.randint(*form.faults))]
    runs = [_run(dice, nodes, form) for _ in range(dice.randint(1, 3))]
    loses = any(fault.kind in (LOSS, COPY) for fault in faults)
    return Round(seed, number, nodes, "nothing" if loses else "always", runs, faults)


def _fault(dice: Random, nodes: int, form: Form) -> Fault:
    low, high, _ = dice.choices(form.lasts_s, [one[2] for one in form.lasts_s])[0]
    return Fault(
        kind=dice.choice(list(KINDS)),
        at_s=round(dice.uniform(0.5, form.begins_s), 1),
        lasts_s=round(dice.uniform(low, high), 1),
        node=f"n{dice.randrange(nodes)}",
    )


def _run(dice: Random, nodes: int, form: Form) -> RunDrawn:
    probes = dice.choice(((), ("ping", "redis"), ("ping", "throughput"), ("ping", "tcp")))
    options = [word for probe in probes for word in ("--probe", probe)]
    options += ["--count", str(dice.randint(*form.echoes))]
    if "throughput" in probes:
        options += ["--duration", "1", "--bitrate", "5"]
    at_s = round(dice.uniform(0, form.begins_s / 4), 1)
    return RunDrawn(at_s, dice.randrange(nodes + 1), tuple(options))


def hold(drawn: Round) -> Survived:
    """
    Let a round happen, and see that all holds.

    Raises:
        AssertionError: Something does not; the message has what was drawn, and the logs.
    """
    begun = time.monotonic()
    clocks = bool(drawn.kinds & set(CLOCKS)) and clock.why_unusable() is None
    with chaos_mesh(drawn.nodes, persist=drawn.persist, clocks=clocks, disks=drawn.disks) as mesh:
        try:
            _play(mesh, drawn)
            outcomes = checks.assert_whole(mesh, must_be_ok=drawn.must_be_ok)
        except Exception as exc:
            told = "".join(format_exception(exc))
            raise AssertionError(f"{told}\n{drawn}\n{mesh.logs()}") from exc
        return Survived(drawn, len(mesh.known_runs), outcomes, time.monotonic() - begun)


def _play(mesh: ChaosMesh, drawn: Round) -> None:
    """Do everything at its time, in one thread, and take it all back."""
    todo: list[tuple[float, Callable[[], object]]] = []
    for one in drawn.runs:
        machine = mesh.lab.nodes[one.machine]
        todo.append((one.at_s, lambda m=machine, o=one.options: mesh.trigger(m, *o)))  # type: ignore[misc]  # mypy knows no default of a lambda
    for fault in drawn.faults:
        todo.append((fault.at_s, lambda f=fault: f.begin(mesh)))  # type: ignore[misc]  # as above
        todo.append((fault.at_s + fault.lasts_s, fault.end))
    begun = time.monotonic()
    for at_s, act in sorted(todo, key=lambda one: one[0]):
        while (left_s := begun + at_s - time.monotonic()) > 0:
            mesh.tend()
            go_on_waiting(min(left_s, 0.2))
        act()
    for fault in drawn.faults:
        fault.end()
