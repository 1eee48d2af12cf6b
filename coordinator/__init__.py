"""The mesh's side of ptzmesh: plans, runs and reads."""
