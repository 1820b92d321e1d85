"""Machines as the probe tells them: parsed, described, and their cores selected by the clusters' words."""

import json
from dataclasses import asdict

import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.machine import Cluster, Core, Machine, describe, parse_machine, read_platform, select_cores


def make_core(number: int, name: str, online: bool = True) -> Core:
    return Core(number, online, "0x412fd050", name, None, None, None, None, "", None)


BOARD = Machine(
    cpu="rockchip,rk3588",
    board="Orange Pi 5",
    cores=tuple(make_core(number, "Cortex-A55" if number < 4 else "Cortex-A76", number != 3) for number in range(8)),
    clusters=(
        Cluster("big", "Cortex-A76", (4, 5), 1024, 2400000),
        Cluster("big", "Cortex-A76", (6, 7), 1024, 2256000),
        Cluster("little", "Cortex-A55", (0, 1, 2), 414, 1800000),
    ),
    isa=("asimd", "asimddp"),
    memory_bytes=8048000 * 1024,
    os="Debian GNU/Linux 12 (bookworm)",
    kernel="5.10.160-rockchip",
)


def test_what_is_parsed_is_what_was_written() -> None:
    assert parse_machine(json.dumps(asdict(BOARD))) == BOARD


def test_a_field_of_a_newer_probe_is_left_out() -> None:
    assert parse_machine(json.dumps({**asdict(BOARD), "smell": "of burnt dust"})) == BOARD


@pytest.mark.parametrize("text", ["", "[]", "null", '{"cpu": 3}', '{"cpu": "", "board": "", "cores": [{"number": 0}]}'])
def test_what_is_no_answer_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="a probe's answer"):
        parse_machine(text)


def test_describe() -> None:
    assert describe(BOARD) == (
        "Orange Pi 5 (rockchip,rk3588); 7 cores (2 Cortex-A76 2.40 GHz + 2 Cortex-A76 2.26 GHz + 3 Cortex-A55 1.80 GHz)"
        "; asimd asimddp; 7.7 GiB; Debian GNU/Linux 12 (bookworm) 5.10.160-rockchip"
    )


def test_describe_says_what_is_not_told() -> None:
    assert describe(Machine("", "")) == "CPU not told; cores not told; no known ISA flag; memory not told; OS not told"


def test_describe_leaves_out_clusters_of_which_nothing_is_told() -> None:
    cores = tuple(make_core(number, "") for number in range(2))
    assert "; 2 cores; " in describe(
        Machine("CPU", "", cores=cores, clusters=(Cluster("big", "", (0, 1), None, None),))
    )


def test_describe_where_only_python_tells() -> None:
    machine = read_platform("libbve.so", "there is none")
    assert machine.kernel
    assert describe(machine).count(machine.kernel) == 1
    assert machine.unread[0].why == "there is none"


def test_select_cores() -> None:
    assert select_cores(BOARD, ["big"]) == (4, 5, 6, 7)
    assert select_cores(BOARD, ["little", "big"]) == (0, 1, 2, 4, 5, 6, 7)
    assert select_cores(BOARD, ["all"]) == (0, 1, 2, 4, 5, 6, 7)


@pytest.mark.parametrize("word", ["middle", "bigg", ""])
def test_a_cluster_that_is_not_there_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="one of big, little, all on this machine"):
        select_cores(BOARD, [word])
