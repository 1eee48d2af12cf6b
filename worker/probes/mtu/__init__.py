"""
The largest packet that passes a path, asked by echoes or by datagrams.

In: an address, sizes. Out: a `PathMtu`. Uses `icmp` and `answer`.
"""
