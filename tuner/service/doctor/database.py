"""The database: whether it can be reached, its tables, its clock, and what workers left behind."""

from __future__ import annotations

import shlex
from functools import cache

from tuner.errors import NotFoundError, TunerError, UnavailableError
from tuner.service.doctor.finding import Finding, ok, problem, warning
from tuner.service.liveness import find_left, is_dead
from tuner.store.connection.urls import redact
from tuner.store.status import DatabaseHealth, DatabaseStatus, read_health

_TOPIC = "database"
_MUCH_S = 5.0


def examine_database(url: str) -> list[Finding]:
    """Returns whether a database can be used, and what workers have left behind in it.

    Args:
        url: Its URL.
    """
    try:
        health = read_health(url, cache(is_dead))
    except NotFoundError:
        return [ok(_TOPIC, f"{redact(url)}: there is none yet; 'tuner run' makes it")]
    except TunerError as error:
        return [tell_unusable(error)]
    return [
        *_examine_tables(health.status),
        *_examine_file(health),
        *_examine_clock(health),
        *_examine_left(health),
    ]


def tell_unusable(error: TunerError) -> Finding:
    """Returns the error of a database, or of its URL, as a problem."""
    if isinstance(error, UnavailableError):
        return problem(_TOPIC, str(error), "tuner doctor # once the server can be reached again")
    return problem(_TOPIC, str(error), "tuner doctor --storage URL # another database")


def examine_locks() -> list[Finding]:
    """Returns how many workers of this machine have ended without taking their lock files along."""
    left = find_left()
    if not left:
        return [ok("workers", "no lock file of a worker that has died")]
    folder = left[0].parent
    files = "a lock file" if len(left) == 1 else f"{len(left)} lock files"
    return [ok("workers", f"{files} of workers that have died in {folder}, kept to tell so")]


def _examine_tables(status: DatabaseStatus) -> list[Finding]:
    told = f"{status.storage}: {status.backend} {status.server_version}"
    if status.needs_newer:
        return [
            problem(
                _TOPIC,
                f"{told}; a newer tuner made its tables ({status.revision}, known: {status.known})",
                "pip install --upgrade tuner",
            )
        ]
    if status.optuna_revision not in (None, status.optuna_known):
        return [
            problem(
                _TOPIC,
                f"{told}; Optuna's tables are of version {status.optuna_revision}, this one works "
                f"with {status.optuna_known}",
                "install the Optuna that made them, or name another database with --storage",
            )
        ]
    if status.revision is not None and status.needs_upgrade:
        return [
            problem(
                _TOPIC,
                f"{told}; tuner's tables are of version {status.revision}, this one works with "
                f"{status.known}",
                "tuner db upgrade # once no older tuner works on it",
            )
        ]
    if status.revision is None:
        return [ok(_TOPIC, f"{told}; no tables of tuner's yet, 'tuner run' makes them")]
    return [ok(_TOPIC, f"{told}; {status.studies} studies with {status.trials} trials")]


def _examine_file(health: DatabaseHealth) -> list[Finding]:
    findings = []
    if health.others:
        findings.append(
            ok(_TOPIC, f"{health.others} more studies are Optuna's own, and are left alone")
        )
    if health.fault is not None:
        findings.append(
            problem(
                _TOPIC,
                f"the file is damaged: {health.fault}",
                "sqlite3 tuner.db .recover # into a new file, or take a backup",
            )
        )
    if health.journal not in (None, "wal") and health.status.revision is not None:
        findings.append(
            warning(
                _TOPIC,
                f"journal mode {health.journal}: readers and writers wait for each other",
                "any command of tuner that opens it sets WAL, unless its file system forbids it: "
                "move it to a local disk",
            )
        )
    return findings


def _examine_clock(health: DatabaseHealth) -> list[Finding]:
    ahead = health.ahead_s
    if abs(ahead) <= _MUCH_S:
        return [ok("clocks", f"the database's is {abs(ahead):.1f} s from this machine's")]
    return [
        warning(
            "clocks",
            f"the database's is {ahead:+.0f} s from this machine's: leases go by the database's, "
            "times in logs by this one's",
            "timedatectl set-ntp true # on both machines",
        )
    ]


def _examine_left(health: DatabaseHealth) -> list[Finding]:
    findings = []
    for name, numbers in health.left.items():
        what = f"trial {numbers[0]} was" if len(numbers) == 1 else f"{len(numbers)} trials were"
        quoted = shlex.quote(name)
        findings.append(
            warning(
                "leases",
                f"{what} left behind in {name} by workers that are gone",
                f"tuner study repair {quoted} # or any worker takes them over: "
                f"tuner study run {quoted}",
            )
        )
    return findings
