"""
The echo engine: ICMP echo to many targets at once, timed by the kernel.

In: addresses and pace. Out: an `EchoSeries` a target. Uses `model`.
"""
