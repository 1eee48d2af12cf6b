"""
Plain values and statistics: probes, plans, options, measurements, names.

In: numbers and text. Out: frozen dataclasses, checked. Uses nothing of ours, and of others only
msgpack.
"""
