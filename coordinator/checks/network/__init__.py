"""
What doctor finds out of the network: between two nodes, and what stands on the way.

In: two nodes, or a run of them. Out: checks. Uses `runs`.
"""
