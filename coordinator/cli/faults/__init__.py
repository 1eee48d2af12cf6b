"""
What a command could not do, or waits for: one line on stderr, and an exit code.

In: what was raised. Out: a line that says what is wrong and what to do.
"""
