"""
Runs: planned, started, followed, carried on, given up, forgotten.

In: who is to be measured with what. Out: the run's record and its measurements as they arrive.
Uses `results`.
"""
