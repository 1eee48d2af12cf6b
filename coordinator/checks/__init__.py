"""
What `ptzmesh doctor` looks at: small functions, each of which returns one `Check` or several.

In: a connection, settings, this machine. Out: checks with the advice for their cause. Uses `runs`.
"""
