"""
The answering port: authentic datagrams by which a node says who it is and what passes.

In: a secret that both ends have from Redis. Out: names, sizes. Uses `model`.
"""
