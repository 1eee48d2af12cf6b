"""
`ptzmesh test`: one target over time, from here or from nodes.

In: options. Out: a series with its statistics, as table, CSV, JSON or plot. Uses `mesh`.
"""
