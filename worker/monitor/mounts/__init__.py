"""Mounted folders: whether each answers, how fast, in a process that may hang."""
