"""`python -m coordinator.cli`: the command line without its installed script."""

from coordinator.cli import main

main()
