"""Measuring files on a device: read measurement.py first, then runners.py and verdicts.py."""
