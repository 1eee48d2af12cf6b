"""
What a command is called with: the options that several share, and the settings file.

In: flags, variables, the file. Out: plain values, which commands are called with.
"""
