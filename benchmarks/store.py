"""What recording trials costs: our group operations against Optuna's own calls, trial by trial.

A group of trials is asked for with its parameters, reports at ten rounds and is told, on a new
database each time: once through :class:`tuner.store.optuna.storage.Storage`, in one transaction an
operation, and once through the methods of Optuna's ``RDBStorage`` that ``Study.ask``,
``Trial.report`` and ``Study.tell`` end in. Optuna runs on the same engine settings (WAL on SQLite),
and again as it comes, without them. What workers do is the same under leases: a
:class:`tuner.store.Ledger` does it for the group, and trial by trial. All alternate, since machines
drift; medians are shown.

    python -m benchmarks.store --database postgresql
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.databases import KINDS, new_database
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.store import (
    Ledger,
    Studies,
    TrialEnding,
    TrialReport,
    WorkerIdentity,
    open_database,
)
from tuner.store.optuna.storage import Storage

S = TypeVar("S", bound=RDBStorage)


@dataclass(frozen=True)
class Load:
    """What is recorded: so many trials, parameters of each, and reports of each."""

    trials: int
    params: int
    reports: int

    def templates(self) -> list[FrozenTrial]:
        """Returns the trials to ask for."""
        space: dict[str, BaseDistribution] = {
            f"x{i}": FloatDistribution(0.0, 1.0) for i in range(self.params)
        }
        params = dict.fromkeys(space, 0.5)
        return [
            create_trial(state=TrialState.RUNNING, params=params, distributions=space)
            for _ in range(self.trials)
        ]


def main() -> None:
    """Runs the rounds and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--params", type=int, default=8)
    parser.add_argument("--reports", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    load = Load(arguments.trials, arguments.params, arguments.reports)
    ways: dict[str, Callable[[str], list[float]]] = {
        "tuner": lambda url: measure(Storage(url), in_groups, load),
        "tuner, under leases": lambda url: measure_ledger(url, leased_in_groups, load),
        "leases, one by one": lambda url: measure_ledger(url, leased_one_by_one, load),
        "Optuna, same settings": lambda url: measure(Storage(url), one_by_one, load),
        "Optuna, as it comes": lambda url: measure(RDBStorage(url), one_by_one, load),
    }
    runs: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            with new_database(arguments.database) as url:
                runs[name].append(way(url))
    found = {
        name: [statistics.median(part) for part in zip(*times, strict=True)]
        for name, times in runs.items()
    }
    if arguments.json:
        print(json.dumps({"database": arguments.database, "ms_a_trial": found}))
    else:
        show(arguments.database, load, found)


def measure(storage: S, record: Callable[[S, int, Load], list[float]], load: Load) -> list[float]:
    """Returns the milliseconds a trial that asking, reporting and telling took, and their sum."""
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "measured")
    warm = storage.create_new_study([StudyDirection.MINIMIZE], "warm")
    record(storage, warm, Load(2, load.params, load.reports))  # statements compiled, pages made
    moments = record(storage, study_id, load)
    check(storage, study_id, load)
    storage.remove_session()
    storage.engine.dispose()
    return ms_a_trial(moments, load)


def measure_ledger(
    url: str, record: Callable[[Ledger, Load], list[float]], load: Load
) -> list[float]:
    """Returns the same of trials that a worker holds under leases."""
    database = open_database(url, create=True)
    warm = replace(load, trials=2)
    for name, part in (("warm", warm), ("measured", load)):
        study = Studies(database).create(spec_of(name, part.trials))
        worker = WorkerIdentity(name, "benchmark", 1, "cpu", "0")
        ledger = Ledger(database, study, worker)
        ledger.register(0.0, lambda ordinal: ordinal)
        moments = record(ledger, part)
    check(database.storage, study.study_id, load)
    database.close()
    return ms_a_trial(moments, load)


def spec_of(name: str, trials: int) -> StudySpec:
    """Returns the spec of a study of so many trials."""
    tree = {
        "study": {"name": name, "workload": "models.parabola:Parabola"},
        "budget": {"trials": trials, "steps": 100},
    }
    return parse_spec(tree, origin="benchmarks.store").resolve()


def ms_a_trial(moments: Sequence[float], load: Load) -> list[float]:
    """Returns the milliseconds a trial between moments in seconds, and their sum."""
    spans = [end - start for start, end in pairwise(moments)]
    return [1000 * span / load.trials for span in (*spans, sum(spans))]


def in_groups(storage: Storage, study_id: int, load: Load) -> list[float]:
    """Records all trials at once; returns when it began, had asked, had reported and had told."""
    templates = load.templates()
    moments = [time.perf_counter()]
    ids = [trial_id for trial_id, _ in storage.ask(study_id, templates)]
    moments.append(time.perf_counter())
    for step in range(load.reports):
        storage.report([(trial_id, step, 0.5) for trial_id in ids])
    moments.append(time.perf_counter())
    storage.tell([(trial_id, TrialState.COMPLETE, 0.5) for trial_id in ids])
    return [*moments, time.perf_counter()]


def one_by_one(storage: RDBStorage, study_id: int, load: Load) -> list[float]:
    """Records each trial on its own; returns the same moments."""
    templates = load.templates()
    moments = [time.perf_counter()]
    ids = [storage.create_new_trial(study_id, template) for template in templates]
    moments.append(time.perf_counter())
    for step in range(load.reports):
        for trial_id in ids:
            storage.set_trial_intermediate_value(trial_id, step, 0.5)
    moments.append(time.perf_counter())
    for trial_id in ids:
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])
    return [*moments, time.perf_counter()]


def leased_in_groups(ledger: Ledger, load: Load) -> list[float]:
    """Records all trials at once, under leases; returns the same moments."""
    templates = load.templates()
    moments = [time.perf_counter()]
    leases = ledger.start([], templates)
    moments.append(time.perf_counter())
    for step in range(load.reports):
        ledger.report(step, [TrialReport(lease, step, 0.5) for lease in leases])
    moments.append(time.perf_counter())
    ledger.finish([TrialEnding(lease, TrialState.COMPLETE, 0.5, {}) for lease in leases])
    return [*moments, time.perf_counter()]


def leased_one_by_one(ledger: Ledger, load: Load) -> list[float]:
    """Records each trial on its own, under its lease; returns the same moments."""
    templates = load.templates()
    moments = [time.perf_counter()]
    leases = [lease for template in templates for lease in ledger.start([], [template])]
    moments.append(time.perf_counter())
    for step in range(load.reports):
        for lease in leases:
            ledger.report(step, [TrialReport(lease, step, 0.5)])
    moments.append(time.perf_counter())
    for lease in leases:
        ledger.finish([TrialEnding(lease, TrialState.COMPLETE, 0.5, {})])
    return [*moments, time.perf_counter()]


def check(storage: RDBStorage, study_id: int, load: Load) -> None:
    """Refuses figures of trials that Optuna does not read back whole."""
    trials = storage.get_all_trials(study_id)
    whole = [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETE
        and len(trial.params) == load.params
        and len(trial.intermediate_values) == load.reports
    ]
    if not len(whole) == len(trials) == load.trials:
        raise SystemExit(f"{len(whole)} of {load.trials} trials were recorded whole")


def show(database: str, load: Load, found: dict[str, list[float]]) -> None:
    """Prints milliseconds a trial, and how many times as long as ours each way takes."""
    print(f"{load.trials} trials, {load.params} parameters, {load.reports} reports, {database};")
    print("milliseconds a trial")
    print(f"{'':>22} {'ask':>8} {'reports':>9} {'tell':>8} {'all':>9} {'ratio':>8}")
    for name, (ask, report, tell, total) in found.items():
        ratio = total / found["tuner"][-1]
        print(f"{name:>22} {ask:>8.3f} {report:>9.3f} {tell:>8.3f} {total:>9.3f} {ratio:>8.1f}")


if __name__ == "__main__":
    main()
