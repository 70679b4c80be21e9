"""Studies under faults: what dies, and what the database holds when all is over.

    python -m benchmarks.faults
    python -m benchmarks.faults --database postgresql --fault kill --trials 20

Each fault has a study of its own, worked on by several workers that are started again whenever they
end, as an orchestrator would. The workload writes down every step it takes (fault_workload.py), so
steps trained twice are counted, not estimated. What counts as right is the same for all faults: the
budget exactly, every trial told once, nothing left running, curves without gaps; trials taken over
from workers that were lost alone, and no worker that gave up, and no process left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.fault_scenes import Fault, Scale, Scene, new_scene
from benchmarks.fault_strikes import FAULTS
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import UnavailableError
from tuner.service.worker.watchdog import HUNG
from tuner.store import Database, Studies, StudyHandle, open_database, read_curves, read_records
from tuner.store.events import Event, read_events
from tuner.store.leases.budget import is_done
from tuner.store.leases.rows import count_leases

_SAVING_S = 0.5
"""Seconds that a checkpoint may take to be written and told of."""

_ENDS = (0, 130, -signal.SIGKILL, HUNG)
"""How workers end that do not give up: done, asked to, killed, or hung."""

EVALUATIONS = 10


@dataclass(frozen=True)
class Result:
    """What was left of a study."""

    fault: str
    database: str
    strikes: int
    seconds: float
    finished: dict[str, int]
    told_twice: int
    left_running: int
    broken_curves: int
    gave_up: int
    left_alive: int
    taken_over: int
    robbed: int
    steps_again: int
    steps_allowed: int

    def holds(self, scale: Scale) -> bool:
        """Tells whether nothing was lost."""
        wrong = self.told_twice + self.left_running + self.broken_curves
        wrong += self.gave_up + self.left_alive + self.robbed
        whole = sum(self.finished.values()) == scale.trials
        return whole and not wrong and self.steps_again <= self.steps_allowed


def main() -> None:
    """Strikes, and prints what was left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--fault", choices=list(FAULTS), action="append")
    parser.add_argument("--trials", type=int, default=Scale.trials)
    parser.add_argument("--workers", type=int, default=Scale.workers)
    parser.add_argument("--every", type=float, default=Scale.every_s, help="seconds of a strike")
    parser.add_argument("--seed", type=int, default=Scale.seed)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    scale = Scale(
        trials=arguments.trials,
        workers=arguments.workers,
        every_s=arguments.every,
        seed=arguments.seed,
    )
    kinds = ["sqlite", "postgresql"] if arguments.database == "both" else [arguments.database]
    cases = [(f, k) for f in arguments.fault or FAULTS for k in kinds if k in FAULTS[f].databases]
    err = Console(stderr=True)
    results = []
    for name, kind in track(cases, "Striking", console=err, transient=True):
        reason = FAULTS[name].refusal()
        if reason is not None:
            err.print(f"{name} on {kind}: left out, since {reason}")
            continue
        results.append(run(name, kind, scale))
        err.print(str(results[-1]))
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        show(results, scale)
    if not all(result.holds(scale) for result in results):
        raise SystemExit(1)


def run(name: str, kind: str, scale: Scale) -> Result:
    """Has a study worked on under one fault, and examines what is left.

    Args:
        name: Of the fault.
        kind: Of the database: ``sqlite`` or ``postgresql``.
        scale: How large it all is.
    """
    fault = FAULTS[name]
    with new_scene(name, fault, kind, scale) as scene:
        database = open_database(scene.url, create=True)
        study = Studies(database).create(spec_of(scale, fault).resolve())
        began = time.monotonic()
        strikes, losses = work(scene, fault, database, study)
        seconds = time.monotonic() - began
        left_alive = scene.crew.see_off()
        losses += scene.crew.codes[HUNG]
        # Who loses its worker loses what was trained since the last checkpoint, at most.
        interval = round((scale.checkpoint_s + _SAVING_S) / scene.step_s)
        records = read_records(database, study)
        givers = find_givers(database, study)
        curves = {r.number: read_curves(database, study, r.number) for r in records}
        result = Result(
            fault=name,
            database=kind,
            strikes=strikes,
            seconds=round(seconds, 1),
            finished=dict(Counter(map(cause_of, filter(is_finished, records)))),
            told_twice=count_told_twice(scene),
            left_running=count_left(database, study, records),
            broken_curves=sum(is_broken(r, curves[r.number], scale) for r in records),
            gave_up=sum(count for code, count in scene.crew.codes.items() if code not in _ENDS),
            left_alive=left_alive,
            taken_over=len(givers),
            robbed=sum(pid not in scene.crew.lost for pid in givers),
            steps_again=count_steps_again(scene),
            steps_allowed=losses * (scale.steps if fault.small_disk else interval)
            + scale.steps * count_anew(database, study),
        )
        database.close()
    return result


def spec_of(scale: Scale, fault: Fault) -> StudySpec:
    """Returns the study."""
    tables = {
        "study": {"name": "faults", "workload": "benchmarks.fault_workload:train"},
        "budget": {"trials": scale.trials, "steps": scale.steps, "evaluations": EVALUATIONS},
        "search": {"seed": scale.seed},
        "space": {"optimizers": ["sgd", "momentum", "adam"], "schedules": ["constant"]},
        "train": {
            "batch_size": 4,
            "checkpoint_s": scale.checkpoint_s,
            "stall_s": fault.stall_s,
        },
    }
    return parse_spec(tables, origin="benchmarks.faults")


def work(scene: Scene, fault: Fault, database: Database, study: StudyHandle) -> tuple[int, int]:
    """Keeps workers at work, and strikes now and then, until the study is done.

    Returns:
        How often it struck, and how many workers lost what they had in hand.
    """
    scale = scene.scale
    strikes = losses = 0
    at_most = 1 if fault.once else scale.strikes
    over_at = time.monotonic() + scale.limit_s
    strike_at: float | None = None
    while time.monotonic() < over_at:
        scene.crew.tend()
        time.sleep(0.25)
        with contextlib.suppress(UnavailableError):
            if is_done(database, study):
                break
        if fault.strike is None or strikes >= at_most or not scene.is_at_work():
            continue
        if strike_at is None:
            strike_at = time.monotonic() + scene.draw_pause_s()
        elif time.monotonic() > strike_at:
            losses += fault.strike(scene)
            strikes += 1
            strike_at = None
    return strikes, losses


def is_finished(record: TrialRecord) -> bool:
    """Tells whether a trial has ended, in whatever way."""
    return record.outcome is not Outcome.RUNNING


def cause_of(record: TrialRecord) -> str:
    """Returns how a trial ended, a failure with what made it fail."""
    if record.outcome is not Outcome.FAILED:
        return str(record.outcome)
    cause = re.split(r":| \(", str(record.attributes.get("error", "")))[0]
    return f"failed: {cause}"


def count_told_twice(scene: Scene) -> int:
    """Counts the trials whose end was told by more than one worker, by their own words."""
    log = scene.crew.log.read_text(errors="replace")
    ends = Counter(
        re.findall(r"^Trial (\d+) (?:complete|pruned|diverged|failed|stopped)", log, re.M)
    )
    return sum(count > 1 for count in ends.values())


def count_left(database: Database, study: StudyHandle, records: list[TrialRecord]) -> int:
    """Counts the trials that have not ended, and the leases that nobody needs any more."""
    with database.read() as connection:
        held = count_leases(connection, study.uuid)
    return held + sum(not is_finished(record) for record in records)


def find_givers(database: Database, study: StudyHandle) -> list[int | None]:
    """Returns the processes of the workers from which trials were taken over, one a trial."""
    holders: dict[int | None, Event] = {}
    givers = []
    for event in read_events(database, study.uuid):
        holder = holders.get(event.number)
        # Its own a worker takes where it has not heard that it had started it.
        if event.kind == "taken_over" and holder and holder.worker_id != event.worker_id:
            givers.append(holder.pid)
        holders[event.number] = event
    return givers


def is_broken(record: TrialRecord, curves: dict[str, dict[int, float]], scale: Scale) -> bool:
    """Tells whether a trial's evaluations or logged numbers have gaps, or are not its own."""
    points = [scale.steps * k // EVALUATIONS for k in range(1, EVALUATIONS + 1)]
    seen = list(record.evaluations)
    squares = curves.get("square", {})
    steps = list(squares)
    whole = record.outcome is Outcome.COMPLETE
    return (
        seen != points[: len(seen)]
        or steps != list(range(1, len(steps) + 1))
        or any(value != step**2 for step, value in squares.items())
        or (whole and (seen != points or len(steps) != scale.steps))
        or (bool(seen) and len(steps) < seen[-1])
    )


def count_anew(database: Database, study: StudyHandle) -> int:
    """Counts the trials that started over: an error soon after a checkpoint is blamed on that."""
    events = read_events(database, study.uuid)
    return sum(event.kind == "started_over" for event in events)


def count_steps_again(scene: Scene) -> int:
    """Counts the steps that were trained more than once, from the workload's own trace."""
    times: dict[str, int] = defaultdict(int)
    for trace in (scene.folder / "trace").iterdir():
        for line in trace.read_text().splitlines():
            times[line] += 1
    return sum(count - 1 for count in times.values())


def show(results: list[Result], scale: Scale) -> None:
    """Prints the table."""
    interval = f"a checkpoint every {scale.checkpoint_s:g} s"
    table = Table(title=f"{scale.trials} trials, {scale.workers} workers, {interval}")
    for column in (
        "fault", "database", "strikes", "seconds", "finished", "told twice", "left running",
        "broken curves", "gave up", "left alive", "taken over", "robbed", "steps again", "allowed",
        "holds",
    ):  # fmt: skip
        table.add_column(column)
    for result in results:
        causes = ", ".join(f"{count} {cause}" for cause, count in sorted(result.finished.items()))
        cells = (
            result.fault, result.database, result.strikes, result.seconds,
            f"{sum(result.finished.values())}: {causes}", result.told_twice, result.left_running,
            result.broken_curves, result.gave_up, result.left_alive, result.taken_over,
            result.robbed, result.steps_again, result.steps_allowed,
            "yes" if result.holds(scale) else "NO",
        )  # fmt: skip
        table.add_row(*map(str, cells))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
