"""
Whether something on the way answers TCP in the target's place.

In: addresses and ports. Out: who answered, and by which route. Uses `icmp`.
"""
