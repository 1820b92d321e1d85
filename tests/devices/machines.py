"""Two real machines on loopback: an sshd in a root of arm64, an adbd in one of this kind. Fixtures for any test."""

import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.native import ROOT, skip

ROOTS = ROOT / "build/devices"  # by tests/make_device_roots.sh
ENTER = ROOT / "tests/enter_root.sh"
PATH = os.environ["PATH"]  # before any fixture puts its programs first
ADBD_PATH = (
    "/mnt/phone:/usr/sbin:/usr/bin:/sbin:/bin"  # first what stands in for a phone's own programs, if a test has it
)
SECONDS = 30
SSHD_CONFIG = """Port {port}
ListenAddress 127.0.0.1
HostKey /mnt/host
AuthorizedKeysFile /mnt/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp /usr/lib/openssh/sftp-server
"""
SSH_CONFIG = """Host *
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""


class Machine(NamedTuple):
    """One that runs: its name for open_device, the folder shared with it as /mnt, and the process it all ends with."""

    name: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]


def find_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def need(*programs: str) -> None:
    """Skip a test where something of the machines is missing."""
    if os.geteuid():
        skip("not root", "run it as root, who alone may make namespaces with many users")
    if not (ROOTS / ".ready").exists():
        skip("no build/devices", "make device-roots")
    for program in programs:
        if not shutil.which(program):
            skip(f"no {program}", ".ci/install-tools test")


@contextmanager
def start(root: str, folder: Path, port: int, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server in a root, and wait until it listens; it ends with this process, whatever ends that."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", ENTER, ROOTS / root, folder, *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    skip(f"no {root} machine: {(folder / 'log').read_text()[-500:]}", "see what it says")
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def put_first(folder: Path, program: str, before: str, options: str) -> None:
    """Write a script, FOLDER/bin/PROGRAM, that calls the system's program with settings of its own."""
    (folder / "bin").mkdir()
    wrapper = folder / "bin" / program
    wrapper.write_text(f'#!/bin/sh\n{before}\nexec {shutil.which(program, path=PATH)} {options} "$@"\n')
    wrapper.chmod(0o755)


@contextmanager
def start_sshd(folder: Path) -> Iterator[Machine]:
    """Start an arm64 machine that user pi gets into; `ssh` first in $PATH is OpenSSH's with a configuration of ours."""
    need("ssh", "ssh-keygen", *(() if platform.machine() == "aarch64" else ("qemu-aarch64",)))
    port = find_port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(port=port))
    (folder / "config").write_text(SSH_CONFIG.format(folder=folder))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    put_first(folder, "ssh", "", f'-F "${{BVE_SSH_CONFIG:-{folder}/config}}"')
    folder.chmod(0o755)
    with (
        pytest.MonkeyPatch.context() as patch,
        start("ssh", folder, port, "/usr/sbin/sshd", "-D", "-e", "-f", "/mnt/sshd_config") as process,
    ):
        patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        yield Machine(f"ssh:pi@127.0.0.1:{port}", port, folder, process)


@contextmanager
def start_adbd(folder: Path) -> Iterator[Machine]:
    """Start an adbd, and an adb server of its own that is connected to it."""
    need("adb")
    port = find_port()
    server = find_port()
    put_first(folder, "adb", f"export HOME={folder} ANDROID_ADB_SERVER_PORT={server}", "")
    with (
        pytest.MonkeyPatch.context() as patch,
        start("adb", folder, port, "env", f"ADBD_PORT={port}", f"PATH={ADBD_PATH}", "/usr/sbin/adbd") as process,
    ):
        patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        try:
            subprocess.run(["adb", "connect", f"127.0.0.1:{port}"], check=True, capture_output=True, timeout=SECONDS)
            yield Machine(f"adb:127.0.0.1:{port}", port, folder, process)
        finally:
            subprocess.run(["adb", "kill-server"], check=False, capture_output=True, timeout=SECONDS)


@pytest.fixture(scope="session")
def ssh_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Give an arm64 Linux machine behind an sshd."""
    with start_sshd(tmp_path_factory.mktemp("sshd")) as machine:
        yield machine


@pytest.fixture(scope="session")
def adb_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Give a machine behind an adbd, with busybox."""
    with start_adbd(tmp_path_factory.mktemp("adbd")) as machine:
        yield machine
