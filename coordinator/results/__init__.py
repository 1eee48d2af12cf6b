"""
The stream as measurements and events, and the matrix that they make.

In: a connection. Out: `Measurement`, `Event`, `Matrix`. Uses `worker`; the lowest room here.
"""
