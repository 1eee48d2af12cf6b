"""
Results on their way to Redis: each exactly once, on disk while Redis is away.

In: measurements. Out: entries of the stream. Uses `wire`.
"""
