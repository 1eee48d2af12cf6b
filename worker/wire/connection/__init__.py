"""
The way to the mesh's Redis: its URL, the connection, what its errors mean.

In: a URL or its parts. Out: a redis-py client that gives up in bounded time and counts what it
sends. Uses `model` and `host`.
"""
