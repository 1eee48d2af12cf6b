"""One file a probe; no Redis here."""
