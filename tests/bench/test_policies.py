from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bigvit_edge.bench.policies import Policy, list_policies
from bigvit_edge.errors import UserError
from bigvit_edge.machine import Machine
from bigvit_edge.runtime import probe
from tests.saved_machines import unpack_machine


@cache
def read(name: str) -> Machine:
    with TemporaryDirectory() as folder:
        return probe(unpack_machine(name, Path(folder)))


def limit(machine: Machine, **limits: object) -> Machine:
    return replace(machine, limits=replace(machine.limits, **limits))  # type: ignore[arg-type]


def spell(policies: list[Policy]) -> list[str]:
    """Name, threads (LITTLE's after a plus) and cores."""
    return [
        f"{p.name}: {p.threads - p.little_threads}{f'+{p.little_threads}' * bool(p.little_threads)} on "
        f"{'any' if p.cores is None else ' '.join(map(str, p.cores))}"
        for p in policies
    ]


@pytest.mark.parametrize(
    ("name", "policies"),
    [
        (
            "rk3588",  # 4 A55, then two pairs of A76
            ["big: 4 on 4 5 6 7", "little: 4 on 0 1 2 3", "big,little: 4+4 on 0 1 2 3 4 5 6 7",
             "all: 8 on 0 1 2 3 4 5 6 7", "auto: 8 on 0 1 2 3 4 5 6 7"],
        ),
        (
            "tensor_g3",  # 4 A510, 4 A715, one X3, which a foreground group keeps to itself
            ["middle: 4 on 4 5 6 7", "little: 4 on 0 1 2 3", "all: 8 on 0 1 2 3 4 5 6 7", "auto: 8 on 0 1 2 3 4 5 6 7"],
        ),
        (
            "snapdragon_8_elite",  # six Oryon and two faster ones; nothing in order
            ["big: 2 on 6 7", "middle: 6 on 0 1 2 3 4 5", "all: 8 on 0 1 2 3 4 5 6 7", "auto: 8 on 0 1 2 3 4 5 6 7"],
        ),
        ("container_half_core", ["big: 1 on 0 1 2 3", "auto: 1 on 0 1 2 3"]),
        (
            "one_node",
            ["big: 4 on 0 1 2 3", "little: 3 on 4 5 6", "big,little: 4+3 on 0 1 2 3 4 5 6",
             "all: 7 on 0 1 2 3 4 5 6", "auto: 7 on 0 1 2 3 4 5 6"],
        ),
    ],
)  # fmt: skip
def test_each_lists_what_a_machine_has(name: str, policies: list[str]) -> None:
    assert spell(list_policies(read(name), ["each"], None)) == policies


def test_an_x86_laptop_has_its_own_two_kinds() -> None:
    big, little, lanes, _, auto = list_policies(read("x86_laptop"), ["each"], None)
    assert (len(big.cores or ()), len(little.cores or ())) == (8, 8)
    assert (lanes.threads, lanes.little_threads) == (16, 8)
    assert auto.choose
    assert auto.ours_alone
    assert not big.ours_alone


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("rk3588", "big: 1 on 4 5 6 7"),
        ("tensor_g3", "middle: 1 on 4 5 6 7"),
        ("snapdragon_8_elite", "big: 1 on 6 7"),
        ("container_half_core", "big: 1 on 0 1 2 3"),
    ],
)
def test_without_a_word_one_thread_runs_on_the_fastest_cores_that_it_may_use(name: str, policy: str) -> None:
    assert spell(list_policies(read(name), [], None)) == [policy]


def test_a_machine_that_tells_nothing_is_left_alone() -> None:
    nothing = Machine("", "")
    assert spell(list_policies(nothing, [], None)) == ["as it is: 1 on any"]
    assert spell(list_policies(nothing, ["each"], 2)) == ["all: 1 on any", "auto: 1 on any"]


def test_words_come_in_their_order_once_and_lanes_in_either_order() -> None:
    machine = read("rk3588")
    assert [p.name for p in list_policies(machine, ["little", "big", "little"], None)] == ["little", "big"]
    assert list_policies(machine, ["little,big"], None) == list_policies(machine, ["big,little"], None)
    assert [p.name for p in list_policies(machine, ["auto", "each"], None)][:2] == ["auto", "big"]


def test_affinity_takes_cores_away() -> None:
    machine = limit(read("rk3588"), allowed=(0, 1, 6), usable=3)
    assert spell(list_policies(machine, ["big", "little", "big,little", "all"], None)) == [
        "big: 1 on 6", "little: 2 on 0 1", "big,little: 1+2 on 0 1 6", "all: 3 on 0 1 6",
    ]  # fmt: skip


def test_a_cluster_that_affinity_leaves_nothing_of_is_refused_and_each_leaves_it_out() -> None:
    machine = limit(read("rk3588"), allowed=(0, 1), usable=2)
    for word in ("big", "big,little"):
        with pytest.raises(UserError, match="--clusters big, whose cores this process may not use there") as e:
            list_policies(machine, [word], None)
        assert e.value.expected == "some of little"
    assert spell(list_policies(machine, ["each"], None)) == ["little: 2 on 0 1", "auto: 2 on 0 1"]
    assert spell(list_policies(machine, [], None)) == ["little: 1 on 0 1"]


def test_a_quota_is_worth_so_many_threads() -> None:
    machine = limit(read("rk3588"), quota_cores=2.5, usable=3)
    assert spell(list_policies(machine, ["big", "big,little"], None)) == [
        "big: 3 on 4 5 6 7", "big,little: 2+1 on 0 1 2 3 4 5 6 7",
    ]  # fmt: skip
    with pytest.raises(UserError, match="4 threads on big cores; expected at most 3"):
        list_policies(machine, ["big"], 4)


def test_more_threads_than_cores_are_refused_and_each_takes_fewer() -> None:
    machine = read("snapdragon_8_elite")
    for words in ([], ["big"]):
        with pytest.raises(UserError, match="4 threads on big cores; expected at most 2"):
            list_policies(machine, words, 4)
    assert [p.threads for p in list_policies(machine, ["each"], 4)] == [2, 4, 4, 4]


def test_lanes_share_threads_as_they_share_cores() -> None:
    machine = read("rk3588")
    for threads, little in ((2, 1), (3, 1), (4, 2), (5, 2), (8, 4)):
        (policy,) = list_policies(machine, ["big,little"], threads)
        assert (policy.threads, policy.little_threads) == (threads, little)
    with pytest.raises(UserError, match="two or more, one for each lane"):
        list_policies(machine, ["big,little"], 1)
    assert "big,little" not in {policy.name for policy in list_policies(machine, ["each"], 1)}


@pytest.mark.parametrize("word", ["", "bog", "big,", "big, little", "all,big", "each,big", "BIG", "big;reboot", "4-7"])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(UserError) as e:
        list_policies(read("rk3588"), [word], None)
    assert "big, middle, little, big,little, all, auto, each" in e.value.expected


def test_a_cluster_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="cluster 'middle'; expected one of big, little, all on this machine"):
        list_policies(read("rk3588"), ["middle"], None)
