"""A node's side of ptzmesh: measure and publish."""
