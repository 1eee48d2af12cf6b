"""Metrics of the host program: queued, written to CSV, sent to the stream in the background."""
