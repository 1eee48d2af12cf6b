"""A node's side of ptzmesh: measure and publish."""

#: The one place of the version; the package's metadata are made of it.
__version__ = "0.2.0"
