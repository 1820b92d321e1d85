"""Where things run: one module per kind of device, imported on its first use."""

from importlib import import_module

from bigvit_edge.devices.contract import Device, DeviceError
from bigvit_edge.errors import suggest

KINDS = {"local": ("local", "Local"), "null": ("null", "Null"), "adb": ("adb", "Adb"), "ssh": ("ssh", "Ssh")}
FORMS = "local, null, adb:SERIAL or ssh:USER@HOST[:PORT]"


def open_device(name: str) -> Device:
    """Open a device by its name.

    name: local, null, adb:SERIAL or ssh:USER@HOST[:PORT]. Connects where there is something to connect to. DeviceError,
    saying whose fault it is, if that fails or the name is none.
    """
    check_name(name)
    kind, _, address = name.partition(":")
    module, maker = KINDS[kind]
    device: Device = getattr(import_module(f"bigvit_edge.devices.{module}"), maker)(name, address)
    return device


def check_name(name: str) -> None:
    """Check that a device's name is of a kind there is.

    DeviceError if not; nobody is asked whether there is such a device.
    """
    kind = name.partition(":")[0]
    if kind not in KINDS:
        raise DeviceError(f"device {name!r}", FORMS, suggest(kind, KINDS))
