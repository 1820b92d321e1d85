"""Jobs on a Ray cluster: exports wherever a CPU is free, benches on the node that holds the device.

No file system is shared: what a job reads and makes travels as bytes, and only this side writes to the sweep's folder.
A node claims a device by a resource of its name, such as 'device:ssh:pi@board'; what nobody claims is this node's.
"""

import logging
import os
import re
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from bigvit_edge.artifact import list_data, write_data
from bigvit_edge.errors import UserError, describe_error
from bigvit_edge.extras import require
from bigvit_edge.folders import staging
from bigvit_edge.manifest import check_output
from bigvit_edge.sweep.folder import Folder
from bigvit_edge.sweep.jobs import Bench, Export, Job
from bigvit_edge.sweep.lanes import EXPORTS, is_here, name_lane
from bigvit_edge.sweep.tasks import perform

Files = bytes | dict[str, bytes]  # a file, or a folder's by relative path
Do = Callable[..., tuple[str, Files]]
CLAIM = "device:"  # before a device's name, in the name of a resource
HF = "hf:"
ADDRESS = re.compile(r"auto|([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):([0-9]{1,5})")
CONNECT_S = 5.0
TRIES = 3  # of a job whose node was lost
GRACE_S = 20.0  # for jobs that are told to end


def perform_away(job: Job, bundle: Files | None, paths: tuple[str, ...], *inputs: Files) -> tuple[str, Files]:
    """Do a job in a folder of its own.

    bundle: what a bench measures. paths: files and folders as the sweep's own file names them, and `inputs` what is in
    them. Returned are why it failed or '', and what it made.
    """
    with tempfile.TemporaryDirectory(prefix="bigvit-edge-") as name:
        folder, places = Path(name), dict[str, str]()
        for i, (path, data) in enumerate(zip(paths, inputs, strict=True)):
            place = folder / str(i) / Path(path.removeprefix(HF)).name
            write_data(data, place)
            places[path] = f"{HF if path.startswith(HF) else ''}{place}"
        export = job if isinstance(job, Export) else job.export
        made = folder / export.name, folder / f"{job.name}.json"
        if bundle is not None:
            write_data(bundle, made[0])
        reason = perform(job, *made, places)
        return reason, b"" if reason else pack(made[0] if isinstance(job, Export) else made[1])


def pack(path: Path) -> Files:
    """Read a file, or all files of a folder."""
    if not path.is_dir():
        return path.read_bytes()
    return {str(file.relative_to(path)): file.read_bytes() for file in list_data(path)}


def list_inputs(job: Job) -> tuple[str, ...]:
    """List the files and folders that a job reads.

    As the sweep's file names them.
    """
    if isinstance(job, Bench):
        named = [job.images]
    else:
        named = [job.model.model, job.model.weights, job.model.calibration, job.images]
    return tuple(dict.fromkeys(path for path in named if path and Path(path.removeprefix(HF)).exists()))


class Cluster:
    """Jobs on a Ray cluster that this machine is a node of.

    A job whose node is lost is begun again elsewhere. A bench of a node itself takes all of that node's CPUs, so that
    no export is beside it.
    """

    def __init__(self, folder: Folder, address: str, do: Do = perform_away) -> None:
        """UserError if there is no such cluster, or Ray is not installed."""
        require("ray")
        self._ray, self._folder = _connect(address), folder
        self._own = self._ray.get_runtime_context().get_node_id()
        self._do = self._ray.remote(do)
        self._running = dict[Any, Job]()
        self._lost = Counter[str]()
        self._sent = dict[str, Any]()  # what jobs read, in Ray's store

    def may_start(self, job: Job, running: Collection[Job], pending: Collection[Job]) -> bool:
        """Tell whether its device or, for an export, a CPU is free."""
        lane, lanes = name_lane(job), [name_lane(other) for other in running]
        if lane != EXPORTS:
            return lane not in lanes
        return lanes.count(EXPORTS) < max(1, self._count_cpus())

    def start(self, job: Job) -> None:
        """Hand a job to the cluster."""
        paths = list_inputs(job)
        for path in paths:
            if path not in self._sent:
                self._sent[path] = self._ray.put(pack(Path(path.removeprefix(HF))))
        bundle = None if isinstance(job, Export) else pack(self._folder.find_bundle(job))
        task = self._do.options(max_retries=0, **self._place(job))
        self._running[task.remote(job, bundle, paths, *(self._sent[path] for path in paths))] = job

    def wait(self, timeout_s: float) -> tuple[Job, str] | None:
        """Wait for a job to end, and take what it made."""
        if not self._running:
            time.sleep(timeout_s)
            return None
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if not ended:
            return None
        job = self._running.pop(ended[0])
        try:
            reason, made = self._ray.get(ended[0])
        except self._ray.exceptions.RayTaskError as e:
            return job, describe_error(e.cause)
        except self._ray.exceptions.RayError as e:  # the node or its process is gone, and what it made with it
            return self._begin_again(job, e)
        return job, reason or self._take(job, made)

    def close(self) -> None:
        """End all jobs, after they have cleaned up, and leave the cluster."""
        for task in self._running:
            self._ray.cancel(task)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=GRACE_S)
        self._ray.shutdown()

    def _begin_again(self, job: Job, e: Exception) -> tuple[Job, str] | None:
        self._lost[job.name] += 1
        if self._lost[job.name] >= TRIES:
            return job, f"the node that did it was lost, {TRIES} times ({describe_error(e)})"
        if isinstance(job, Export) and not self._count_cpus():
            return job, "no node of the cluster has a CPU for it"
        self.start(job)
        return None

    def _take(self, job: Job, made: Files) -> str:
        """Write what a node has made; or say what is wrong with it."""
        if isinstance(made, bytes):
            self._folder.write(self._folder.find_result(job), made.decode())
            return ""
        if strange := [name for name in made if Path(name).is_absolute() or ".." in Path(name).parts]:
            return str(UserError(f"{strange[0]!r} from a node", "a file in a bundle", "see who is in the cluster"))
        bundle = self._folder.find_bundle(job)
        with staging(bundle, lambda: check_output(bundle)) as part:
            write_data(made, part)
        return ""

    def _place(self, job: Job) -> dict[str, Any]:
        if isinstance(job, Export):
            return {"num_cpus": 1}
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        claim = f"{CLAIM}{job.device}"
        nodes = {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}
        claimed = sorted(node for node, resources in nodes.items() if resources.get(claim, 0) >= 1)
        node = claimed[0] if claimed else self._own
        return {
            "num_cpus": nodes.get(node, {}).get("CPU", 0) if is_here(job.device) else 0,
            "resources": {claim: 1} if claimed else {},
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }

    def _count_cpus(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))


def _connect(address: str) -> Any:
    """Ray, as a node of that cluster's."""
    found = ADDRESS.fullmatch(address)
    if not found or int(found[2] or 1) > 65535:
        raise UserError(
            f"--ray {address}", "HOST:PORT of a cluster that this machine is in, or auto", "see docs/sweep.md"
        )
    do = "on this machine: ray start --address HOST:PORT"
    if found[2]:
        try:
            socket.create_connection((found[1].strip("[]"), int(found[2])), CONNECT_S).close()
        except OSError as e:
            raise UserError(f"nothing answers at {address} ({e.strerror or e})", "a Ray cluster's head node", do) from e
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    handlers: Mapping[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as e:
        raise UserError(f"--ray {address}: {describe_error(e)}", "a Ray cluster that this machine is in", do) from e
    finally:
        for number, handler in handlers.items():  # Ray sets its own
            signal.signal(number, handler)
    return ray
