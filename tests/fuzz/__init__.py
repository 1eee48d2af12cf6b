"""Fuzzing of every parser by which bytes of others come in."""
