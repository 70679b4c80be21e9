"""Whole studies, start to end, on two processes: tuner as it comes against the quickest plain form.

Plain is the Optuna script a careful user writes (``benchmarks.plain_study``) in its quickest form:
two processes, half of the trials each, on Optuna's journal file. Ours is ``tuner run --workers 2``
on a study that has just been created on SQLite, with what ``--fuse auto`` chooses, measured from
the command to its report: start-up, calibration and compiling are part of it, with an empty cache
of Inductor (cold) and with what that run has left in it (warm). One thread a process. Both search
the same space. Every round has a seed of its own, from which both take weights, batches and
proposals; these are not the same numbers in both, so that best values compare over rounds.

For ours it also tells where the time of the workers went. *Start-up* (imports, data) is what the
workers of a study of two trials need up to the first, ``--fuse off``; what others need beyond that
is *calibration and compiling*. Trials are charged *training* and *evaluation*; compiling for fewer
lanes, as some end, is in there. After its last trial a worker *waits* for the other one. What is
left between its first trial and its last is *storage and search*: proposing, judging, reading and
writing, and setting trials up. What is left of the wall time is the command around the workers.

    python -m benchmarks.fused_studies --workload digits --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from benchmarks.plain_study import JOURNAL, SPACES
from benchmarks.workloads import SIZES, STUDIES, import_string
from tuner.service.liveness import is_dead
from tuner.service.summaries import read_summary
from tuner.store import Studies, open_database
from tuner.store.events import read_events
from tuner.store.leases.workers import read_workers

ROOT = Path(__file__).parents[1]
PHASES = (
    *("start-up", "calibration and compiling", "training", "evaluation"),
    *("storage and search", "waiting"),
)


def main() -> None:
    """Runs the rounds and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=sorted(STUDIES), default="digits")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--space", choices=SPACES, default=SPACES[0])
    parser.add_argument("--fuse", default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.trials = arguments.trials or STUDIES[arguments.workload].trials
    found = compare(arguments)
    print(json.dumps(found) if arguments.json else describe(found))


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what each round of each way has given."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    start_s = measure_start(arguments)
    for seed in range(arguments.rounds):
        runs["plain"].append(run_plain(arguments, seed))
        seeded = ("--set", f"search.seed={seed}")
        with tempfile.TemporaryDirectory(prefix="tuner-bench-") as cache:
            runs["cold"].append(run_ours(arguments, cache, start_s, seeded))
            runs["warm"].append(run_ours(arguments, cache, start_s, seeded))
    return {
        "workload": arguments.workload,
        "trials": arguments.trials,
        "steps": STUDIES[arguments.workload].steps,
        "processes": arguments.processes,
        "space": arguments.space,
        "runs": dict(runs),
    }


def run_plain(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Returns seconds, steps and best value of the script in several processes."""
    name, count = arguments.workload, arguments.processes
    shares = [len(range(first, arguments.trials, count)) for first in range(count)]
    with tempfile.TemporaryDirectory(prefix="tuner-bench-") as folder:
        began, cpu_s = time.perf_counter(), spent_s()
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.plain_study", "--workload", name),
                    *("--trials", str(share), "--steps", str(STUDIES[name].steps)),
                    *("--batch", str(SIZES[name].batch), "--space", arguments.space),
                    *("--storage", f"{JOURNAL}{folder}/journal.log"),
                    *("--seed", str(count * seed + place), "--training-seed", str(seed)),
                ],
                cwd=ROOT,
                env=environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            for place, share in enumerate(shares)
        ]
        answers = [json.loads(process.communicate()[0]) for process in processes]
        seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu_s": spent_s() - cpu_s,
        "steps": sum(answer["steps"] for answer in answers),
        "best": min(answer["best"] for answer in answers),
    }


def measure_start(arguments: argparse.Namespace) -> float:
    """Returns the seconds that imports and data take the workers of a study, in the mean."""
    tiny = argparse.Namespace(**vars(arguments) | {"trials": arguments.processes, "fuse": "off"})
    with tempfile.TemporaryDirectory(prefix="tuner-bench-") as cache:
        found = run_ours(tiny, cache, 0.0, ("--set", "budget.steps=10"))
    start_s: float = found["spans_s"]["calibration and compiling"] / arguments.processes
    return start_s


def run_ours(
    arguments: argparse.Namespace, cache: str, start_s: float, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the same of a study of ours, and where its workers' time went.

    Args:
        arguments: What main() was told.
        cache: A folder for what is compiled.
        start_s: What imports and data take a worker, in seconds.
        extra: More options for the study.
    """
    name = arguments.workload
    with tempfile.TemporaryDirectory(prefix="tuner-bench-") as folder:
        url = f"sqlite:///{folder}/studies.db"
        own = environment(
            TUNER_STORAGE=url, TUNER_HOME=f"{folder}/home", TORCHINDUCTOR_CACHE_DIR=cache
        )
        tuner = [sys.executable, "-m", "tuner"]
        study = ["--workload", import_string(name), "--name", name, *settings(arguments), *extra]
        run([*tuner, "study", "create", "--no-check", *study], own)
        began, cpu_s = time.perf_counter(), spent_s()
        how = ["--workers", str(arguments.processes), "--fuse", arguments.fuse]
        run([*tuner, "run", *study, *how, "--set", "confirm.top=0"], own)
        seconds = time.perf_counter() - began
        cpu_s = spent_s() - cpu_s
        return {"seconds": seconds, "cpu_s": cpu_s, **read(url, name, seconds, start_s)}


def spent_s() -> float:
    """Returns the seconds of CPU that processes have taken which this one has waited for.

    Where others use the machine, too, they compare better than seconds of wall time.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def settings(arguments: argparse.Namespace) -> list[str]:
    """Returns the options that make a study like the script's."""
    values: dict[str, object] = {
        "budget.trials": arguments.trials,
        "budget.steps": STUDIES[arguments.workload].steps,
        "train.batch_size": SIZES[arguments.workload].batch,
    }
    if arguments.space == "default":
        return [o for key, value in values.items() for o in ("--set", f"{key}={value}")]
    values |= {
        "space.schedules": '["cosine"]',
        "schedule.cosine.warmup": 0.0,
        "schedule.cosine.final_ratio": 0.0,
        "space.breadth": 2,
    }
    options = [o for key, value in values.items() for o in ("--set", f"{key}={value}")]
    return ["--optimizers", "adam", *options]


def environment(**values: str) -> dict[str, str]:
    """Returns what a process sees: one thread, and nothing of the caller's studies."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TUNER_")}
    data = {key: os.environ[key] for key in ("TUNER_DATA",) if key in os.environ}
    return inherited | data | {"OMP_NUM_THREADS": "1", "TZ": "UTC"} | values


def run(command: list[str], own: dict[str, str]) -> None:
    """Runs a command to its end."""
    ended = subprocess.run(command, env=own, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}")


def read(url: str, name: str, seconds: float, start_s: float) -> dict[str, Any]:
    """Returns what the database tells of a study that took so many seconds."""
    database = open_database(url)
    try:
        study = Studies(database).find(name)
        summary = read_summary(database, study)
        trials: dict[str, list[int]] = defaultdict(list)
        first_at: dict[str, float] = {}
        for event in read_events(database, study.uuid):
            if event.kind == "started" and event.worker_id is not None:
                trials[event.worker_id].append(event.number or 0)
                first_at.setdefault(event.worker_id, event.at)
        ends = {
            record.number: record.finished_at.replace(tzinfo=UTC).timestamp()
            for record in summary.records
            if record.finished_at is not None
        }
        spans = dict.fromkeys(PHASES, 0.0)
        workers = read_workers(database, study, is_dead)
        for worker in workers:
            last_at = max((ends[n] for n in trials[worker.id]), default=worker.last_seen)
            begun_at = first_at.get(worker.id, last_at)
            before_s = begun_at - worker.started_at
            spans["start-up"] += min(start_s, before_s)
            spans["calibration and compiling"] += max(0.0, before_s - start_s)
            spans["waiting"] += worker.last_seen - last_at
            spans["storage and search"] += last_at - begun_at
        spans["training"], spans["evaluation"] = summary.training_s, summary.evaluation_s
        spans["storage and search"] -= summary.training_s + summary.evaluation_s
    finally:
        database.close()
    return {
        "steps": summary.steps,
        "best": summary.best.record.value if summary.best else None,
        "fused": summary.fusing.reason if summary.fusing else "",
        "spans_s": spans,
        "shares": {phase: span / (len(workers) * seconds) for phase, span in spans.items()},
    }


def describe(found: dict[str, Any]) -> str:
    """Returns a table."""
    lines = [
        "{workload}: {trials} trials of up to {steps} steps, {processes} processes, "
        "{space} space".format(**found),
        f"{'':>6} {'seconds':>9} {'of CPU':>8} {'trials/h':>10} {'ratio':>7} {'steps':>11} "
        f"{'steps/s':>9} {'best (lowest-highest)':>27}",
    ]
    for way, runs in found["runs"].items():
        ratio = statistics.median(
            plain["seconds"] / run["seconds"]
            for plain, run in zip(found["runs"]["plain"], runs, strict=True)
        )
        seconds, cpu_s, steps = (
            statistics.median(run[key] for run in runs) for key in ("seconds", "cpu_s", "steps")
        )
        bests = sorted(run["best"] for run in runs)
        best = f"{statistics.median(bests):.5f} ({bests[0]:.5f}-{bests[-1]:.5f})"
        lines.append(
            f"{way:>6} {seconds:>9.1f} {cpu_s:>8.1f} {3600 * found['trials'] / seconds:>10,.0f} "
            f"{ratio:>6.2f}x {steps:>11,.0f} {steps / seconds:>9,.0f} {best:>27}"
        )
    for way in ("cold", "warm"):
        last = found["runs"][way][-1]
        shares = ", ".join(f"{phase} {share:.0%}" for phase, share in last["shares"].items())
        lines.append(f"{way}: of {found['processes']} x wall time: {shares}; {last['fused']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
