"""Fuzzing of every door by which bytes of others come in."""
