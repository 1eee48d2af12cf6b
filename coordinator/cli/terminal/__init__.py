"""
How things look and behave on a terminal: tables, units, progress, logs, signals.

In: plain values. Out: text. Holds no rule of the mesh.
"""
