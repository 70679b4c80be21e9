"""Databases whose clock a scene of faults.py sets, from outside: tuner asks theirs as ever."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fault_scenes import Scene

_HOUR_S = 3600
_SITE = Path(__file__).parent / "fault_site"

# A schema that is looked into before the system's has a clock of its own. A sequence is the same
# to every transaction at once, as a clock is.
_POSTGRESQL = (
    "CREATE SEQUENCE public.ahead_s MINVALUE -1000000 START 0",
    "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
    "'SELECT pg_catalog.clock_timestamp() + last_value * interval ''1 s'' FROM public.ahead_s'",
    "ALTER DATABASE {database} SET search_path = public, pg_catalog",
)


def own_clock(scene: Scene) -> None:
    """Gives the scene's database a clock of its own, which goes right for now."""
    if scene.server is None:
        # SQLite's clock is that of the process, so its functions are given to each connection.
        scene.environment["PYTHONPATH"] = str(_SITE)
        scene.environment["FAULT_CLOCK"] = str(_clock_of(scene))
        _set_clock(scene, 0)
        return
    with scene.operator(scene.database) as operator:
        for statement in _POSTGRESQL:
            operator.exec_driver_sql(statement.format(database=scene.database))


def jump_clock(scene: Scene) -> None:
    """Sets the clock forward by an hour, or back to what it was."""
    scene.ahead_s = _HOUR_S - scene.ahead_s
    _set_clock(scene, scene.ahead_s)


def _set_clock(scene: Scene, ahead_s: int) -> None:
    if scene.server is None:
        new = _clock_of(scene).with_suffix(".new")
        new.write_text(str(ahead_s))
        new.replace(_clock_of(scene))
        return
    with scene.operator(scene.database) as operator:
        operator.exec_driver_sql(f"SELECT setval('public.ahead_s', {ahead_s})")


def _clock_of(scene: Scene) -> Path:
    return scene.folder / "clock"
