"""Faults at random moments, drawn from a seed: afterwards each pair still has exactly one row."""
