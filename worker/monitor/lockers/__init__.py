"""The lockers of PTZJEPA: held and timed; who holds and who waits."""
