"""PTZJEPA's command line and settings, as far as they concern the monitor."""
