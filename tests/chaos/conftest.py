"""Options of the chaos suite, the rule for machines without a lab, and what was survived."""

from __future__ import annotations

import pytest
from lab.namespaces import why_unusable
from missing import missing

from chaos import clock
from chaos.__main__ import SURVIVED, how_to_repeat

#: What is drawn in the tests; `make chaos` draws others.
SEED, ROUNDS = 235, 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-seed", type=int, default=SEED, help="what rounds are drawn from")
    parser.addoption("--chaos-rounds", type=int, default=ROUNDS, help="how many rounds are drawn")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Decide before any fixture, as these make labs."""
    if item.get_closest_marker("chaos") is None:
        return
    reason = why_unusable() or clock.why_unusable()
    if reason is not None:
        missing(reason)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "round_number" in metafunc.fixturenames:
        first, *more = range(metafunc.config.getoption("--chaos-rounds"))
        later = (pytest.param(number, marks=pytest.mark.long) for number in more)
        metafunc.parametrize("round_number", [first, *later])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was drawn and survived, and how a round is repeated."""
    passed = terminalreporter.stats.get("passed", [])
    lines = [text for one in passed for name, text in one.user_properties if name == SURVIVED]
    if lines:
        seed = config.getoption("--chaos-seed")
        again = how_to_repeat(seed, 0, short=True)
        terminalreporter.section(f"chaos, seed {seed}; its first round again: {again}")
        terminalreporter.write_line("\n".join(lines))
