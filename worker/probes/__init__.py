"""
What measures: a file or a folder a probe, and what they share.

In: literal addresses and options. Out: measurements. Uses `model` and `host`; knows no Redis.
"""
