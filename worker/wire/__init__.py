"""
What processes agree on through Redis: keys, records, jobs, scripts, limits.

In: a connection and plain values. Out: plain values, read and checked. Every key and every field of
a record is named here and nowhere else. Uses `model` and `host`.
"""
