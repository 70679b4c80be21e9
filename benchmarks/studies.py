"""Whole studies, start to end: tuner against the Optuna script a user would write.

Both train the same workload with the same plain loop, one process, TPE with median pruning, on a
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

ROOT = Path(__file__).parents[1]
STEPS = {"parabola": 300, "digits": 500, "mnist": 2000}
BATCH = {"parabola": 32, "digits": 128, "mnist": 128}

# What a careful user writes: tensor-indexed batches, fused Adam, a report at ten points.
SCRIPT = """
import sys
import optuna
import torch
from tuner.training.workload import load_workload

name, trials, steps, batch, url, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
optuna.logging.set_verbosity(optuna.logging.WARNING)
workload = load_workload(f"models.{name}:{name.capitalize()}")
data = workload.data()
steps, batch = int(steps), int(batch)


taken = 0


def objective(trial):
    global taken
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    beta1 = 1 - trial.suggest_float("one_minus_beta1", 0.02, 0.5, log=True)
    torch.manual_seed(0)
    model = workload.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(beta1, 0.999), fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    per_epoch = len(data.train[0]) // batch
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(data.train[0])).split(batch)
        rows = order[step % per_epoch]
        loss = workload.loss(model, tuple(t[rows] for t in data.train))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        taken += 1
        if (step + 1) % (steps // 10) == 0:
            with torch.no_grad():
                value = workload.metrics(model, data.val)["val_loss"].item()
            trial.report(value, step + 1)
            if trial.should_prune():
                raise optuna.TrialPruned
    return value


study = optuna.create_study(
    storage=url, sampler=optuna.samplers.TPESampler(seed=0), pruner=optuna.pruners.MedianPruner()
)
study.optimize(objective, n_trials=int(trials))
print(taken)
"""


def main() -> None:
    """Runs the pairs and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=sorted(STEPS), default="digits")
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
    steps = STEPS[arguments.workload]
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
    values = (name, arguments.trials, STEPS[name], BATCH[name], url, arguments.threads)
    command = [sys.executable, "-c", SCRIPT, *map(str, values)]
    seconds, output = run(command, os.environ.copy())
    return seconds, int(output)


def time_ours(arguments: argparse.Namespace, url: str) -> tuple[float, int, float]:
    """Returns the seconds of a worker on a study like the script's, its steps and overhead."""
    name = arguments.workload
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"TUNER_STORAGE": url, "TUNER_HOME": home}
        tuner = [sys.executable, "-m", "tuner"]
        settings = {
            "budget.trials": arguments.trials,
            "budget.steps": STEPS[name],
            "train.batch_size": BATCH[name],
            "space.schedules": '["cosine"]',
            "schedule.cosine.warmup": 0.0,
            "schedule.cosine.final_ratio": 0.0,
            "space.breadth": 2,
        }
        options = [o for key, value in settings.items() for o in ("--set", f"{key}={value}")]
        workload = f"models.{name}:{name.capitalize()}"
        create = [*tuner, "study", "create", "--no-check", "--workload", workload]
        run([*create, "--name", name, "--optimizers", "adam", *options], environment)
        seconds, _ = run(
            [*tuner, "worker", "start", name, "--threads", str(arguments.threads)], environment
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
