"""What stands in the way of a connection by ssh, each told as whose fault it is; and a board that goes away."""

import subprocess
from pathlib import Path

import pytest

from bigvit_edge.devices import open_device
from bigvit_edge.devices.contract import DeviceError
from bigvit_edge.devices.process import Process, run_words
from tests.devices.machines import Machine, find_port, start_sshd


def set_known(machine: Machine, folder: Path, known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "known_hosts").write_text(known)
    text = (machine.folder / "config").read_text()
    (folder / "config").write_text(text.replace(f"{machine.folder}/known_hosts", f"{folder}/known_hosts"))
    monkeypatch.setenv("BVE_SSH_CONFIG", str(folder / "config"))


def test_a_wrong_host_key(ssh_machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    known = f"[127.0.0.1]:{ssh_machine.port} {(tmp_path / 'other.pub').read_text()}"
    set_known(ssh_machine, tmp_path, known, monkeypatch)
    with pytest.raises(DeviceError, match=r"another host key than .* ssh-keygen -R '\[127\.0\.0\.1\]:\d+'"):
        open_device(ssh_machine.name)
    assert (tmp_path / "known_hosts").read_text() == known


def test_an_unknown_host_key(ssh_machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_known(ssh_machine, tmp_path, "", monkeypatch)
    with pytest.raises(
        DeviceError, match=r"host key is not known here .*connect once by hand .*: ssh -p \d+ -l pi 127"
    ):
        open_device(ssh_machine.name)
    assert (tmp_path / "known_hosts").read_text() == ""


def test_a_user_who_is_not_let_in(ssh_machine: Machine) -> None:
    with pytest.raises(DeviceError, match=r"lets nobody in without a password \(.*; .*ssh-copy-id"):
        open_device(f"ssh:nobody@127.0.0.1:{ssh_machine.port}")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("pi@127.0.0.1:{}", "nothing listens there"),
        ("pi@nowhere.invalid", "no machine of that name is known"),
        ("-oProxyCommand=true@127.0.0.1", "expected ssh:USER@HOST"),
        ("pi@-oProxyCommand=true", "expected ssh:USER@HOST"),
        ("a'b;c@127.0.0.1", "expected ssh:USER@HOST"),
        ("pi@127.0.0.1;reboot", "expected ssh:USER@HOST"),
        ("pi@127.0.0.1\n", "expected ssh:USER@HOST"),
        ("pi@fe80::1", "an IPv6 address stands in brackets"),
        ("pi@[::1]:{}", "nothing listens there|no way leads there|Cannot assign"),
        ("pi@127.0.0.1:99999", "expected ssh:USER@HOST"),
        ("", "expected ssh:USER@HOST"),
    ],
)
def test_wrong_addresses(address: str, told: str) -> None:
    with pytest.raises(DeviceError, match=told):
        open_device(f"ssh:{address.format(find_port())}")


def test_a_board_whose_shell_prints_words_of_its_own(ssh_machine: Machine) -> None:
    device = open_device(ssh_machine.name)
    run_words(device, ("sh", "-c", "mkdir -p ~/.ssh; echo 'echo Welcome!' > ~/.ssh/rc"))
    try:
        with pytest.raises(DeviceError, match=r"prints words of its own around a program's .*silence"):
            open_device(ssh_machine.name)
    finally:
        run_words(device, ("sh", "-c", "rm -r ~/.ssh"))
        device.close()


def test_a_missing_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="no ssh, which ssh:pi@board needs"):
        open_device("ssh:pi@board")


def ask_until_it_dies(started: Process) -> None:
    while True:
        started.ask("two", 20)


def test_a_board_that_goes_away(tmp_path: Path) -> None:
    with start_sshd(tmp_path) as machine:
        device = open_device(machine.name)
        with Process(device, ("cat",)) as started:
            assert started.ask("one", 20) == "one"
            machine.process.kill()
            machine.process.wait()
            for _ in range(2):
                with pytest.raises(DeviceError, match=f"{machine.name} is gone") as caught:
                    ask_until_it_dies(started)
                assert caught.value.lost
        device.close()
        with pytest.raises(DeviceError, match="nothing listens there"):
            open_device(machine.name)
