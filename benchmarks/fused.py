"""Fused training against the plain loop a skilled user writes, and against our single loop.

The same sampled configurations are trained in four ways: by a plain loop, one model at a time on
tensor-indexed batches with torch's fused or foreach optimizers; by that in as many processes as
there are cores; by tuner one at a time; by tuner as one cohort. Nobody is stopped early, all start
from the same weights and see the same batches, and final losses must agree. Each way has processes
of its own, which wait while another is measured; rounds alternate, since machines drift, and the
quickest of each counts. What is compiled is compiled anew, and timed apart.

    python -m benchmarks.fused --workload digits
    python -m benchmarks.fused --workload mnist --device cuda --lanes 128 --json

``benchmarks.fused_studies`` compares whole studies, ``benchmarks.growth`` how costs grow.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fused_ways import WAYS, Job
from benchmarks.workloads import SIZES, load

ROOT = Path(__file__).parents[1]
MANY = "plain, all cores"

_GAP = 0.05
"""Median relative gap of final losses up to which they agree: float32 at hot learning rates."""

_ALIKE = 0.9
"""Share of the trials, at least, of which both or neither must diverge."""


def main() -> None:
    """Runs the rounds and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=sorted(SIZES), default="digits")
    parser.add_argument("--lanes", type=int, help="how many trials")
    parser.add_argument("--steps", type=int, help="of a trial")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda")
    parser.add_argument("--threads", type=int, default=1, help="of every process")
    parser.add_argument("--processes", type=int, default=cores(), help="of the second way")
    parser.add_argument("--optimizers", nargs="*", default=[], help="to sample; else the usual")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    size = SIZES[arguments.workload]
    steps = arguments.steps or size.steps
    if steps % size.evaluations:
        parser.error(f"--steps {steps}: a multiple of {size.evaluations}, the evaluations")
    job = Job(
        way="",
        workload=arguments.workload,
        source=load(arguments.workload).source,  # downloaded here, and not by all at once
        device=arguments.device,
        threads=arguments.threads,
        steps=steps,
        evaluations=size.evaluations,
        seeds=list(range(arguments.lanes or size.lanes)),
        optimizers=arguments.optimizers,
        compiled=not arguments.eager,
    )
    found = compare(job, arguments.rounds, arguments.processes)
    print(json.dumps(found) if arguments.json else describe(found))
    if not found["agree"]:
        raise SystemExit("Final losses do not agree.")


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Team:
    """Processes that train the trials of a job in one way, side by side.

    Args:
        job: The trials.
        way: One of :data:`WAYS`.
        processes: How many processes share the trials.
        cache: A folder for what is compiled.

    Attributes:
        ready: What each said of itself, once it was prepared.
    """

    def __init__(self, job: Job, way: str, processes: int, cache: str) -> None:
        command = [sys.executable, "-m", "benchmarks.fused_ways"]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(job.threads),
            "TORCHINDUCTOR_CACHE_DIR": cache,
        }
        self._members = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=environment,
            )
            for _ in range(processes)
        ]
        # Neighbours go to different processes, since what diverges early ends early.
        parts = [job.seeds[first::processes] for first in range(processes)]
        self._parts = parts
        orders = [dataclasses.replace(job, way=way, seeds=part) for part in parts]
        self.ready = self._ask([json.dumps(dataclasses.asdict(order)) for order in orders])

    def train(self) -> tuple[float, list[float], int]:
        """Trains all trials; returns seconds, their last losses, and the peak of memory in all."""
        began = time.perf_counter()
        answers = self._ask(["train"] * len(self._members))
        seconds = time.perf_counter() - began
        losses = {
            seed: loss
            for part, answer in zip(self._parts, answers, strict=True)
            for seed, loss in zip(part, answer["answer"], strict=True)
        }
        ends = [losses[seed] for seed in sorted(losses)]
        return seconds, ends, sum(answer["peak_bytes"] for answer in answers)

    def step_s(self) -> float:
        """Returns the seconds of a step alone, of one trial."""
        answers = self._ask(["step"] * len(self._members))
        return statistics.fmean(float(answer["answer"]) for answer in answers)

    def _ask(self, lines: Sequence[str]) -> list[dict[str, Any]]:
        for member, line in zip(self._members, lines, strict=True):
            print(line, file=member.stdin, flush=True)
        return [self._hear(member) for member in self._members]

    def _hear(self, member: subprocess.Popen[str]) -> dict[str, Any]:
        line = member.stdout.readline() if member.stdout else ""
        if not line:
            raise SystemExit(f"A process that was to train ended with {member.wait()}.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the processes."""
        for member in self._members:
            member.kill()
            member.communicate()


@contextlib.contextmanager
def assemble(job: Job, processes: int) -> Iterator[dict[str, Team]]:
    """Gives a team a way, prepared one after the other; what is compiled is kept nowhere."""
    counts = {"plain": 1, MANY: min(processes, len(job.seeds)), "single": 1, "fused": 1}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tuner-bench-"))
        teams: dict[str, Team] = {}
        for name, count in counts.items():
            teams[name] = Team(job, name if name in WAYS else "plain", count, folder)
            stack.callback(teams[name].close)
        yield teams


def compare(job: Job, rounds: int, processes: int) -> dict[str, Any]:
    """Returns the figures of all ways of training, of each its best round."""
    seconds: dict[str, list[float]] = {}
    ends: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    step_s: dict[str, list[float]] = {}
    with assemble(job, processes) as teams:
        for _ in range(rounds):
            for name, team in teams.items():
                taken, ends[name], peaks[name] = team.train()
                seconds.setdefault(name, []).append(taken)
            for name in ("plain", "fused"):
                step_s.setdefault(name, []).append(teams[name].step_s())
        ready = teams["fused"].ready[0]
    best = {name: min(taken) for name, taken in seconds.items()}
    alone = {name: min(taken) for name, taken in step_s.items()}
    steps = len(job.seeds) * job.steps
    gaps = {name: gap(ends["plain"], ends[name]) for name in best if name != "plain"}
    compile_s = ready["seconds"]
    return {
        "workload": job.workload,
        "data": ready["data"],
        "device": ready["device"],
        "threads": job.threads,
        "processes": processes,
        "lanes": len(job.seeds),
        "steps": job.steps,
        "compiled": ready["compiled"],
        "compile_s": compile_s,
        "ways": {
            name: {
                "seconds": seconds[name],
                "trials_per_h": 3600 * len(job.seeds) / best[name],
                "steps_per_s": steps / best[name],
                "ratio": best["plain"] / best[name],
                "peak_bytes": peaks[name],
            }
            for name in best
        },
        "ratio_with_compiling": best["plain"] / (best["fused"] + compile_s),
        "step_us": {name: 1e6 * taken for name, taken in alone.items()},
        "steps_ratio": alone["plain"] / alone["fused"],
        "outside_steps": {
            name: max(0.0, 1 - taken * steps / best[name]) for name, taken in alone.items()
        },
        "diverged": {name: sum(map(math.isnan, losses)) for name, losses in ends.items()},
        "gaps": gaps,
        "agree": all(one["median"] <= _GAP and one["alike"] >= _ALIKE for one in gaps.values()),
    }


def gap(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Returns how final losses differ: the median and largest relative gap, and the share alike.

    >>> gap([1.0, 2.0, math.nan], [1.0, 2.2, math.nan])["alike"]
    1.0
    """
    pairs = list(zip(ours, theirs, strict=True))
    alike = [math.isnan(a) == math.isnan(b) for a, b in pairs]
    gaps = [abs(a - b) / abs(a) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    return {
        "median": statistics.median(gaps) if gaps else 0.0,
        "largest": max(gaps, default=0.0),
        "alike": sum(alike) / len(alike),
    }


def describe(found: dict[str, Any]) -> str:
    """Returns the figures as a table."""
    lines = [
        "{workload} (data: {data}): {lanes} trials of {steps} steps, {device}, "
        "{threads} thread(s) a process, {processes} processes for all cores".format(**found),
        f"{'':>17} {'trials/h':>12} {'steps/s':>12} {'ratio':>8} {'peak':>11}",
    ]
    for name, row in found["ways"].items():
        lines.append(
            f"{name:>17} {row['trials_per_h']:>12,.0f} {row['steps_per_s']:>12,.0f} "
            f"{row['ratio']:>7.2f}x {row['peak_bytes'] / 2**20:>7,.0f} MiB"
        )
    how = "compiling" if found["compiled"] else "tracing (nothing is compiled)"
    alone, outside = found["step_us"], found["outside_steps"]
    lines += [
        f"{how} took {found['compile_s']:.1f} s: {found['ratio_with_compiling']:.2f}x with it",
        f"a step alone: plain {alone['plain']:.1f} µs, fused {alone['fused']:.1f} µs a lane, "
        f"{found['steps_ratio']:.2f}x",
        f"outside steps (batches, schedules, evaluations, start): plain {outside['plain']:.0%}, "
        f"fused {outside['fused']:.0%}",
        f"{found['diverged']['plain']} diverged and ended early, as if they had taken all steps",
        "final losses against the plain loop: "
        + "; ".join(
            f"{name} {one['median']:.1e} apart in the median, {one['alike']:.0%} alike in diverging"
            for name, one in found["gaps"].items()
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
