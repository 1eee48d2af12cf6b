"""
Stream to CSV, each row once, whatever ends when.

In: a connection and a path. Out: a CSV, which is its own cursor; FILE.bad for what is no
measurement. Uses `results` and `runs`.
"""
