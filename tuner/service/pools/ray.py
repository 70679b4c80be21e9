"""A pool of workers that are actors of a Ray cluster (``pip install 'tuner[ray]'``).

Each actor runs the same process that a terminal would, so that placement, restarts, fractions of
a GPU and autoscaling are Ray's, and training knows nothing of Ray.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from tuner.domain.places import project_folder
from tuner.errors import SpecError, UnavailableError
from tuner.service.pools.pool import MAX_RESTARTS, Exit, Seat, SeatState, Slot
from tuner.service.pools.worker_process import Job, WorkerProcess

_LAST_WISHES_S = 5.0
_ANSWER_S = 5.0
_PARTS = 10_000
"""The parts of a GPU that Ray counts in."""

_OWN_CLUSTER = {
    # Else Ray listens on all interfaces, whatever address it is given.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Whoever reaches a cluster runs code on it, and so may other users of this machine.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    # Workers save and end by themselves when their actor is gone; Ray would not let them.
    "RAY_kill_child_processes_on_worker_exit": "0",
}


@contextlib.contextmanager
def join_cluster(
    address: str | None = None, *, cpus: int | None = None, gpus: int | None = None
) -> Iterator[None]:
    """Connects to a Ray cluster; without an address, to one of this process's own.

    A cluster of our own lives as long as the context, listens on loopback alone, lets nobody
    connect without its token, has no dashboard and reports nothing to anyone. SIGTERM does not end
    it, so that it is there until the workers have saved, even if all processes are sent SIGTERM.

    Args:
        address: The address of a running cluster: ``auto`` or such as ``host:6379``.
        cpus: The workers that a cluster of our own has room for; left out, one a core.
        gpus: The GPUs that a cluster of our own says it has; left out, those Ray finds.

    Raises:
        SpecError: If Ray is not installed.
        UnavailableError: If the cluster cannot be reached.
    """
    # Both are read when Ray is loaded or starts its processes.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        os.environ.update(_OWN_CLUSTER)
    else:
        _knock(address)
    try:
        import ray
    except ImportError:
        raise SpecError("--on ray: Ray is not installed: pip install 'tuner[ray]'.") from None

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with contextlib.ExitStack() as leaving:
        if address is None:
            folder = tempfile.TemporaryDirectory(prefix="tuner-ray-", ignore_cleanup_errors=True)
            quiet |= {
                "num_cpus": cpus,
                "num_gpus": gpus,
                "include_dashboard": False,
                # Nothing is kept there, and by default it takes a third of the memory.
                "object_store_memory": 80 * 2**20,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": leaving.enter_context(folder),
            }
        with _blocked(signal.SIGTERM):
            try:
                ray.init(address or "local", **quiet)
            except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
                failed = f"--address {address}: no Ray cluster answers there"
                raise UnavailableError(
                    f"{failed if address else 'Ray did not start on this machine'}: {error}"
                ) from None
            leaving.callback(ray.shutdown)
        yield


def count_gpus() -> int:
    """Returns how many GPUs the cluster that this process has joined has."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def _count_parts(gpus: float) -> int:
    """Returns a share of a GPU, or several GPUs, as Ray counts them."""
    parts = round(gpus * _PARTS) if math.isfinite(gpus) else -1
    if parts / _PARTS != gpus or (parts > _PARTS and parts % _PARTS):
        raise SpecError(
            f"--gpus-per-worker {gpus:g}: whole GPUs, or a part of one with at most 4 digits, such "
            "as 0.3333."
        )
    return parts


def check_room(workers: int, gpus_per_worker: float, gpus: int) -> None:
    """Refuses workers that would wait for a GPU for ever, as Ray lets them.

    >>> check_room(4, 0.5, gpus=2)

    Args:
        workers: The number of workers to run at once.
        gpus_per_worker: Share of a GPU that each takes; above 1, whole GPUs.
        gpus: The number of GPUs that the cluster has, and will have.

    Raises:
        SpecError: If they do not fit; it says which share or number would.
    """
    if not _count_parts(gpus_per_worker):
        return
    if gpus == 0:
        raise SpecError(
            f"{gpus_per_worker:g} GPU a worker asked for, and the cluster has 0: "
            "use --gpus-per-worker 0 to train on CPUs."
        )
    share = _count_parts(gpus_per_worker)
    # No worker has shares of two GPUs.
    room = gpus * (_PARTS // share) if share <= _PARTS else gpus * _PARTS // share
    if workers > room:
        fitting = _PARTS // math.ceil(workers / gpus) / _PARTS
        fewer = f" or --workers {room}" if room else ""
        raise SpecError(
            f"{workers} workers with {gpus_per_worker:g} GPU each asked for, and the cluster has "
            f"{gpus}: use --gpus-per-worker {fitting:g}{fewer}."
        )


def _knock(address: str) -> None:
    """Refuses at once an address that Ray would refuse after minutes, in one line."""
    if "auto" in (address, address.rpartition("/")[2]):
        return
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = place.port
    except ValueError:
        port = None
    if place.hostname is None or port is None:
        raise SpecError(f"--address {address}: no host and port; write auto, or such as host:6379.")
    try:
        socket.create_connection((place.hostname, port), timeout=_ANSWER_S).close()
    except OSError as error:
        raise UnavailableError(
            f"--address {address}: nothing answers there ({error}). Give the address that "
            "'ray start --head' has printed, or leave --address out for a cluster of this "
            "machine alone."
        ) from None


@contextlib.contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """Blocks a signal here for a while, and for good in processes that are started meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class RayPool:
    """A :class:`tuner.service.pools.pool.Pool` of actors of a Ray cluster on one study.

    This process must have joined a cluster. The database's URL reaches an actor as an argument of
    a task, which goes from process to process: it is in no environment, job or actor that Ray
    keeps or shows. Between machines it is as safe as the cluster's connections are (Ray's TLS).

    Args:
        job: The study they work on, with their settings. The nodes need tuner and the workload's
            code; logs are written on the node of each worker, and so are checkpoints unless the
            folder is shared.
        workers: The number of actors.
        gpus_per_worker: Share of a GPU that Ray reserves for each; 0 for none.
        device: The device they train on, as ``--device`` takes it; else ``cuda`` if they have a
            share of a GPU, and ``cpu`` if not.
        max_restarts: How often Ray starts a worker that died again, at least 0.

    Raises:
        SpecError: If Ray knows no such share of a GPU.
    """

    def __init__(
        self,
        job: Job,
        *,
        workers: int,
        gpus_per_worker: float = 0.0,
        device: str | None = None,
        max_restarts: int = MAX_RESTARTS,
    ) -> None:
        _count_parts(gpus_per_worker)
        import ray

        self._ray = ray
        self._job = job
        device = device or ("cuda" if gpus_per_worker else "cpu")
        self._seats = {index: Seat(Slot(index, device)) for index in range(workers)}
        self._actor_class = ray.remote(_Employer).options(
            num_cpus=1,
            num_gpus=gpus_per_worker,
            max_restarts=max_restarts,
            # One thread works, the others answer meanwhile.
            max_concurrency=3,
        )
        self._actors: dict[int, Any] = {}
        self._work: dict[int, Any] = {}
        self._questions: dict[int, Any] = {}
        self._stopping = False

    @property
    def seats(self) -> Sequence[Seat]:
        """The slots and their workers, as known since the last :meth:`reap`."""
        return list(self._seats.values())

    @property
    def alive(self) -> int:
        """How many actors work, or wait for a place in the cluster."""
        return len(self._work)

    def start(self) -> None:
        """Asks Ray for the actors; those the cluster has no room for wait until it has."""
        for index, seat in self._seats.items():
            actor: Any = self._actor_class.remote(index, seat.slot.device)
            # An actor started anew is given its work again, as long as Ray starts it anew.
            run = actor.run.options(max_task_retries=-1)
            self._actors[index], self._work[index] = (
                actor,
                run.remote(self._job, str(project_folder())),
            )

    def reap(self) -> list[Exit]:
        """Returns the workers that ended since the last call, also those that Ray has restarted."""
        exits = []
        for index in list(self._work):
            seat = self._seats[index]
            ended = self._end_of(index)
            if ended is None:
                exits += self._look_at(seat)
                continue
            del self._work[index], self._actors[index]
            self._questions.pop(index, None)
            seat.state = SeatState.DONE if ended.code == 0 else SeatState.FAILED
            exits.append(ended)
        return exits

    def stop(self) -> None:
        """Asks every worker to save its trial and end; does not wait."""
        self._stopping = True
        for index, actor in self._actors.items():
            seat = self._seats[index]
            if seat.pid is None:
                # It may wait for a place for ever, and holds no trial yet.
                self._ray.kill(actor)
            else:
                actor.stop.remote()
            seat.state = SeatState.STOPPING

    def kill(self) -> None:
        """Ends every worker at once; their trials are taken over later."""
        self._stopping = True
        killed = [actor.kill.remote() for actor in self._actors.values()]
        if killed:
            self._ray.wait(killed, num_returns=len(killed), timeout=_LAST_WISHES_S)
        for actor in self._actors.values():
            self._ray.kill(actor)

    def _end_of(self, index: int) -> Exit | None:
        """Returns how an actor's work ended, or None while it goes on."""
        done, _ = self._ray.wait([self._work[index]], timeout=0)
        if not done:
            return None
        try:
            ended: Exit = self._ray.get(done[0])
        except self._ray.exceptions.RayError as error:
            if self._stopping and self._seats[index].pid is None:
                return Exit(index, 0, "")
            reason, *_ = str(error).splitlines()
            return Exit(index, 1, f"Worker {index} is gone: {reason}")
        return ended

    def _look_at(self, seat: Seat) -> list[Exit]:
        """Learns where a worker is, without waiting; returns its end if it is another by now."""
        index = seat.slot.index
        question = self._questions.get(index)
        if question is None:
            self._questions[index] = self._actors[index].where.remote()
            return []
        answered, _ = self._ray.wait([question], timeout=0)
        if not answered:
            return []
        del self._questions[index]
        try:
            host, pid, device = self._ray.get(answered[0])
        except self._ray.exceptions.RayError:
            # It is being started, perhaps elsewhere; the next answer tells.
            return []
        former, seat.host, seat.pid, seat.device = seat.pid, host, pid, device
        if self._stopping and pid not in (None, former):
            # A worker started anew has not heard of it.
            self._actors[index].stop.remote()
        if pid is None:
            seat.pid = former
            return []
        if not self._stopping:
            seat.state = SeatState.RUNNING
        if former in (None, pid):
            return []
        seat.restarts += 1
        return [Exit(index, 1, f"Worker {index} died, or its node did.", restarted=True)]


class _Employer:
    """The actor: it runs one worker process and answers questions about it.

    Args:
        index: The worker's slot.
        device: The device it trains on.
    """

    def __init__(self, index: int, device: str) -> None:
        self._index = index
        self._device = device
        self._process: WorkerProcess | None = None
        self._stopping = False

    def run(self, job: Job, folder: str) -> Exit:
        """Runs the worker to its end; one that dies takes the actor along, for Ray to restart."""
        with contextlib.suppress(OSError):
            # Where this machine has the driver's folder, the workload's code is there.
            os.chdir(folder)
        self._process = process = WorkerProcess(job, self._index, self._device)
        if self._stopping:
            process.terminate()
        ended = process.wait()
        if ended.died and not self._stopping:
            os._exit(1)
        return ended

    def where(self) -> tuple[str, int | None, str]:
        """Returns the machine, the worker's process if it runs, and the device."""
        import ray

        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        device = ", ".join(f"cuda:{gpu}" for gpu in gpus) or self._device
        return platform.node(), self._process.pid if self._process else None, device

    def stop(self) -> None:
        """Asks the worker to save its trial and end."""
        self._stopping = True
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Ends the worker at once."""
        self._stopping = True
        if self._process is not None:
            self._process.kill()
