"""Whole studies, start to end: tuner against the Optuna script a user would write.

Both train the same workload, one process, one trial at a time, TPE with median pruning, on a
database of their own: a SQLite file, or a PostgreSQL server that this starts. Their samplers draw
differently and so stop different trials; what is compared is wall time a thousand optimizer steps,
start-up and storage included. Runs alternate, and ratios are taken within a pair, since machines
drift.

    python -m benchmarks.studies --workload digits --trials 60 --pairs 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.databases import KINDS, new_database
from benchmarks.workloads import SIZES, STUDIES, import_string

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Runs the pairs and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=sorted(STUDIES), default="digits")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    arguments = parser.parse_args()
    rows = []
    for _ in range(arguments.pairs):
        with new_database(arguments.database) as url:
            plain_s, plain_steps = time_plain(arguments, url)
        with new_database(arguments.database) as url:
            ours_s, ours_steps, overhead = time_ours(arguments, url)
        plain, ours = 1000 * plain_s / plain_steps, 1000 * ours_s / ours_steps
        rows.append({"plain_s": plain, "tuner_s": ours, "ratio": plain / ours, "outside": overhead})
    ratio = statistics.median(row["ratio"] for row in rows)
    if arguments.json:
        print(json.dumps({"workload": arguments.workload, "runs": rows, "ratio": ratio}))
        return
    steps = STUDIES[arguments.workload].steps
    print(f"{arguments.workload}, {arguments.trials} trials of up to {steps} steps,")
    print(f"one process, {arguments.threads} thread(s), {arguments.database};")
    print("seconds a thousand steps")
    print(f"{'Optuna script':>15} {'tuner':>10} {'ratio':>7} {'outside training':>18}")
    for row in rows:
        print(
            f"{row['plain_s']:>13.2f} s {row['tuner_s']:>8.2f} s "
            f"{row['ratio']:>7.2f} {row['outside']:>17.1%}"
        )
    print(f"median ratio {ratio:.2f}")


def time_plain(arguments: argparse.Namespace, url: str) -> tuple[float, int]:
    """Returns the seconds of the script, start to end, and the steps it took."""
    name = arguments.workload
    command = [
        *(sys.executable, "-m", "benchmarks.plain_study", "--workload", name),
        *("--trials", str(arguments.trials), "--steps", str(STUDIES[name].steps)),
        *("--batch", str(SIZES[name].batch), "--threads", str(arguments.threads)),
        *("--storage", url),
    ]
    seconds, output = run(command, os.environ.copy())
    return seconds, int(json.loads(output)["steps"])


def time_ours(arguments: argparse.Namespace, url: str) -> tuple[float, int, float]:
    """Returns the seconds of a worker on a study like the script's, its steps and overhead."""
    name = arguments.workload
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"TUNER_STORAGE": url, "TUNER_HOME": home}
        tuner = [sys.executable, "-m", "tuner"]
        settings = {
            "budget.trials": arguments.trials,
            "budget.steps": STUDIES[name].steps,
            "train.batch_size": SIZES[name].batch,
            "space.schedules": '["cosine"]',
            "schedule.cosine.warmup": 0.0,
            "schedule.cosine.final_ratio": 0.0,
            "space.breadth": 2,
            "search.sampler": "tpe",
            "search.pruner": "median",
            "search.portfolio": "false",
        }
        options = [o for key, value in settings.items() for o in ("--set", f"{key}={value}")]
        workload = import_string(name)
        create = [*tuner, "study", "create", "--no-check", "--workload", workload]
        run([*create, "--name", name, "--optimizers", "adam", *options], environment)
        seconds, _ = run(
            [
                *(*tuner, "worker", "start", name, "--fuse", "off"),
                *("--threads", str(arguments.threads)),
            ],
            environment,
        )
        _, report = run([*tuner, "study", "report", name, "--json"], environment)
        found = json.loads(report)
        return seconds, int(found["steps"]), float(found["overhead"])


def run(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Returns the seconds a command takes, and what it prints."""
    began = time.perf_counter()
    ended = subprocess.run(
        command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return time.perf_counter() - began, ended.stdout


if __name__ == "__main__":
    main()
