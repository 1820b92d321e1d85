"""The page's policies: those of bigvit_edge.bench.policies, on every saved machine."""

from dataclasses import asdict
from pathlib import Path

from bigvit_edge.bench.policies import KNOWN, list_policies
from bigvit_edge.errors import UserError
from bigvit_edge.machine import Machine
from bigvit_edge.runtime import probe
from tests.app.page import run_module
from tests.bench.made import make_machine
from tests.saved_machines import NAMES, unpack_machine

WORDS = [[], *([word] for word in KNOWN), ["little,big"], ["middle,little"], ["each", "big"], ["all", "little", "all"]]


def list_here(machine: Machine, words: list[str], threads: int | None) -> object:
    try:
        return [{**asdict(p), "cores": p.cores and list(p.cores)} for p in list_policies(machine, words, threads)]
    except UserError as e:
        return f"{e.met}; expected {e.expected}"


def test_policies_are_those_of_the_command_line(tmp_path: Path) -> None:
    machines = [probe(unpack_machine(name, tmp_path / name)) for name in NAMES]
    machines += [make_machine(**limits) for limits in ({"allowed": (0, 1, 4)}, {"cpuset": ()}, {"usable": 3})]
    machines.append(Machine("", ""))
    cases = [(machine, words, threads) for machine in machines for words in WORDS for threads in (None, 1, 2, 4, 9)]
    ask = "(m, [machine, words, threads]) => m.listPolicies(machine, words, threads)"
    (folder := tmp_path / "node").mkdir()
    answers = run_module(folder, "policies.js", ask, [(asdict(machine), words, n) for machine, words, n in cases])
    refused = 0
    for (machine, words, threads), answer in zip(cases, answers, strict=True):
        here = list_here(machine, words, threads)
        if isinstance(here, str):  # what to do may name near words there; the page's words come from a list
            assert answer.get("error", "").startswith(here), (machine.cpu, words, threads)
            refused += 1
        else:
            assert answer.get("value") == here, (machine.cpu, words, threads)
    assert 100 < refused < len(cases) / 2
