"""
Tests with two ends that load a link: `near` asks, `far` answers, under a lease of both.

In: a row's pairs. Out: measurements. Uses `identity`, `wire` and `probes`.
"""
