"""Measuring files on a device: read measurement.py first, then turns.py and verdicts.py."""
