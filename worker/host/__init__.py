"""
This machine as a process meets it: its identity, its resolver, its signals and child processes.

In: the kernel's files and answers. Out: plain values. Uses `model`; knows no Redis.
"""
