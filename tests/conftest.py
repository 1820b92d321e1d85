"""Fixtures of all tests."""

from tests.devices.machines import adb_machine, ssh_machine

__all__ = ("adb_machine", "ssh_machine")
