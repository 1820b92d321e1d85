"""A Ray cluster of two nodes on loopback, one of which is killed in the middle of its jobs."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.sweep.cluster import Cluster, Files, list_inputs, pack, perform_away
from bigvit_edge.sweep.folder import Folder
from bigvit_edge.sweep.jobs import Export, Job
from bigvit_edge.sweep.settings import Model
from tests.native import skip
from tests.sweep.made import make_bench, make_export

PATIENCE_S = 60.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # the second: on loopback alone


class Log:
    """Tells in a file that a job was begun or ended, and on which node; stands in for what a job does.

    A job whose name begins with 'slow' waits for a file of its name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, job: Job, bundle: Files | None, paths: tuple[str, ...], *inputs: Files) -> tuple[str, Files]:
        self.tell("begun", job)
        while job.name.startswith("slow") and not (self.folder / job.name).exists():
            time.sleep(0.02)
        self.tell("ended", job)
        name = "../manifest.json" if job.name == "strange" else "manifest.json"
        made: Files = {name: job.name.encode()} if isinstance(job, Export) else job.name.encode()
        return ("it broke" if job.name == "bad" else ""), made

    def tell(self, what: str, job: Job) -> None:
        import ray

        node = ray.get_runtime_context().get_node_id()
        with (self.folder / "log").open("a") as file:
            file.write(f"{what} {job.name} {node}\n")

    def read(self, what: str) -> list[tuple[str, str]]:
        lines = (self.folder / "log").read_text().splitlines() if (self.folder / "log").exists() else []
        told = [line.split() for line in lines]
        return [(name, node) for word, name, node in told if word == what]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        if find_spec("ray") is None:
            skip("no Ray", "pip install 'bigvit-edge[ray]'")
        # now: it reads these when it is imported
        from ray.cluster_utils import Cluster as Nodes

        started = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        assert started.address.startswith("127.0.0.1:")
        yield started
        started.shutdown()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def finish(cluster: Cluster, count: int) -> dict[str, str]:
    ended: dict[str, str] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(ended) < count:
        assert time.monotonic() < deadline
        if told := cluster.wait(0.1):
            assert told[0].name not in ended
            ended[told[0].name] = told[1]
    return ended


def test_a_node_that_is_killed_loses_nothing_and_doubles_nothing(nodes: Any, log: Log, tmp_path: Path) -> None:
    """What ran there is done again elsewhere; what was done stays done; a device's jobs go where it is."""
    other = nodes.add_node(num_cpus=1, resources={"device:ssh:pi@board": 1})
    folder = Folder(tmp_path / "sweep")
    run = lambda *rest: log(*rest)  # noqa: E731  Ray takes functions
    cluster = Cluster(folder, nodes.address, run)
    try:
        exports = [make_export(f"slow-{i}") for i in range(2)]
        on_board = make_bench("bench-board", device="ssh:pi@board", export=make_export("made"))
        here = make_bench("bench-null", export=make_export("made"))
        write_bundle = folder.find_bundle(here)
        write_bundle.mkdir(parents=True)
        (write_bundle / "manifest.json").write_text("made")
        for job in (on_board, here, *exports):
            assert cluster.may_start(job, [], [])
            cluster.start(job)
        assert not cluster.may_start(replace(on_board, name="second"), [on_board], [])
        assert not cluster.may_start(make_export("third"), exports, [])
        assert finish(cluster, 2) == {"bench-board": "", "bench-null": ""}
        while len(log.read("begun")) < 4:
            time.sleep(0.02)
        at = dict(log.read("begun"))
        assert at["bench-board"] == other.node_id
        assert at["bench-null"] != other.node_id
        assert sorted(at[job.name] for job in exports) == sorted((other.node_id, at["bench-null"]))

        nodes.remove_node(other, allow_graceful=False)
        alone = next(job for job in exports if at[job.name] != other.node_id)
        (tmp_path / alone.name).touch()  # frees the CPU that is left
        assert finish(cluster, 1) == {alone.name: ""}
        while len(log.read("begun")) < 5:
            assert cluster.wait(0.1) is None
        (lost,) = (job.name for job in exports if job is not alone)
        (tmp_path / lost).touch()
        assert finish(cluster, 1) == {lost: ""}
        ended = log.read("ended")
        assert Counter(name for name, _ in ended) == dict.fromkeys(("bench-board", "bench-null", "slow-0", "slow-1"), 1)
        assert Counter(name for name, _ in log.read("begun"))[lost] == 2
        for job in exports:
            assert (folder.find_bundle(job) / "manifest.json").read_text() == job.name
        assert folder.find_result(on_board).read_text() == "bench-board"

        cluster.start(replace(on_board, name="later"))  # nobody claims it any more
        cluster.start(make_export("bad"))
        cluster.start(make_export("strange"))
        strange = "'../manifest.json' from a node; expected a file in a bundle; see who is in the cluster"
        assert finish(cluster, 3) == {"later": "", "bad": "it broke", "strange": strange}
        assert dict(log.read("ended"))["later"] == at["bench-null"]
        assert not any(folder.find_bundle(make_export(name)).exists() for name in ("bad", "strange"))
    finally:
        cluster.close()


def test_a_bench_of_a_node_has_all_its_cpus(nodes: Any, tmp_path: Path) -> None:
    cluster = Cluster(Folder(tmp_path / "sweep"), nodes.address)
    try:
        assert cluster._place(make_bench(device="local"))["num_cpus"] == 1
        assert cluster._place(make_bench(device="ssh:localhost"))["num_cpus"] == 1
        assert cluster._place(make_bench(device="adb:R5CT"))["num_cpus"] == 0
        assert cluster._place(make_export()) == {"num_cpus": 1}
    finally:
        cluster.close()


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "local", "127.0.0.1", "127.0.0.1:99999", "a b:1", ""])
def test_what_is_no_address(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        Cluster(Folder(tmp_path / "sweep"), address)


def test_nothing_answers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing answers at 127\.0\.0\.1:1 "):
        Cluster(Folder(tmp_path / "sweep"), "127.0.0.1:1")


def test_what_a_job_reads_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the sweep's file names it, wherever it lies on the node."""
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    (tmp_path / "pictures" / "a" / "1.png").write_bytes(b"png")
    (tmp_path / "w.pth").write_bytes(b"weights")
    pictures, weights = str(tmp_path / "pictures"), str(tmp_path / "w.pth")
    job = make_export(model=Model("vit_s", weights=weights), images=pictures)
    assert list_inputs(job) == (weights, pictures)
    assert pack(Path(pictures)) == {"a/1.png": b"png"}

    def look(job: Job, bundle: Path, result: Path, places: dict[str, str]) -> str:
        assert Path(places[weights]).read_bytes() == b"weights"
        assert Path(places[weights]).name == "w.pth"
        assert (Path(places[pictures]) / "a" / "1.png").read_bytes() == b"png"
        assert not places[weights].startswith(str(tmp_path))
        bundle.mkdir()
        (bundle / "manifest.json").write_text("made")
        return ""

    monkeypatch.setattr("bigvit_edge.sweep.cluster.perform", look)
    paths = list_inputs(job)
    told = perform_away(job, None, paths, *(pack(Path(path)) for path in paths))
    assert told == ("", {"manifest.json": b"made"})
