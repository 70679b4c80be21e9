"""Devices to train on, and the compiler that makes fused training faster."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from tuner.service.doctor.finding import Finding, ok, problem, warning

_SMI = "nvidia-smi"
_ASKED = ("index", "name", "driver_version", "memory.total", "memory.used", "compute_mode")
_MIG = "mig.mode.current"
_PATIENCE_S, _COMPILE_S = 30, 300
_LEAST_FREE_MIB = 1024

_PROGRAM = """
import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
x = torch.ones(64, device=device)
assert float(torch.compile(lambda x: (x.sin() + x).sum())(x)) > 0
print(device)
"""


def examine_devices(environment: Mapping[str, str]) -> list[Finding]:
    """Returns the devices that torch sees, and what may keep it from others.

    Args:
        environment: The environment of this process.
    """
    import torch  # noqa: PLC0415 (seconds, for this alone)

    gpus = read_gpus()
    findings = [finding for gpu in gpus for finding in _examine_gpu(gpu)]
    built = torch.version.cuda or torch.version.hip
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        version = (
            f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        )
        told = (
            f"torch {torch.__version__} trains on {count} GPU{'s' if count > 1 else ''}, {version}"
        )
        return [ok("devices", told), *findings]
    if torch.backends.mps.is_available():
        return [ok("devices", f"torch {torch.__version__} trains on mps")]
    told = f"torch {torch.__version__} trains on the CPU"
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if gpus and built is None:
        findings.append(
            problem(
                "devices",
                f"{told}: it was built without CUDA, and there are {len(gpus)} GPUs",
                "install a torch that was built for CUDA: https://pytorch.org/get-started/locally",
            )
        )
    elif gpus and hidden is not None:
        findings.append(
            warning(
                "devices",
                f"{told}: CUDA_VISIBLE_DEVICES={hidden!r} hides {len(gpus)} GPUs",
                "unset CUDA_VISIBLE_DEVICES",
            )
        )
    elif gpus:
        findings.append(
            problem(
                "devices",
                f"{told}: CUDA {built} does not start with this driver",
                f"{_SMI} # update the driver, or install a torch for an older CUDA",
            )
        )
    return findings or [ok("devices", f"{told}; no GPU is here")]


def read_gpus() -> list[dict[str, str]]:
    """Returns the GPUs that NVIDIA's driver knows, by the names of their properties."""
    program = shutil.which(_SMI)
    if program is None:
        return []
    for asked in ((*_ASKED, _MIG), _ASKED):  # older drivers know no MIG
        words = [program, f"--query-gpu={','.join(asked)}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(  # noqa: S603 (a list of arguments, no shell)
                words, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        rows = csv.reader(io.StringIO(done.stdout), skipinitialspace=True)
        return [dict(zip(asked, row, strict=True)) for row in rows if len(row) == len(asked)]
    return []


def _examine_gpu(gpu: Mapping[str, str]) -> list[Finding]:
    """Returns what one GPU has, and what keeps several workers from it."""
    topic = f"GPU {gpu['index']}"
    told = f"{gpu['name']}, driver {gpu['driver_version']}"
    findings = []
    total, used = gpu["memory.total"], gpu["memory.used"]
    if total.isdecimal() and used.isdecimal():
        free = int(total) - int(used)
        told += f", {free:,} of {int(total):,} MiB free"
        if free < _LEAST_FREE_MIB:
            findings.append(
                warning(topic, f"{told}: others hold its memory", f"{_SMI} # who works on it")
            )
    if gpu["compute_mode"] not in ("Default", "[N/A]"):
        findings.append(
            warning(
                topic,
                f"compute mode {gpu['compute_mode']}: one process at a time",
                f"one worker a GPU; or as root: {_SMI} -i {gpu['index']} -c DEFAULT",
            )
        )
    if gpu.get(_MIG) == "Enabled":
        findings.append(
            warning(
                topic,
                "MIG is on: a process sees one instance",
                f"export CUDA_VISIBLE_DEVICES=MIG-… # from: {_SMI} -L",
            )
        )
    return [*([] if findings and "MiB" in findings[0].text else [ok(topic, told)]), *findings]


def examine_compiler(environment: Mapping[str, str]) -> list[Finding]:
    """Returns whether there is a C++ compiler, which torch compiles with on the CPU."""
    named = environment.get("CXX")
    tried = [named] if named else ["g++", "clang++", "c++"]
    found = next((path for name in tried if (path := shutil.which(name))), None)
    if found is not None:
        return [ok("compiler", f"{found}, for compiled cohorts")]
    missing = f"CXX={named} is no program" if named else "no C++ compiler is here"
    return [
        warning(
            "compiler",
            f"{missing}: fused training on the CPU goes on without compiling, slower",
            "apt-get install g++, or export CXX=…",
        )
    ]


def try_compiling() -> list[Finding]:
    """Returns whether torch can compile a small function, tried in a process and folder apart."""
    with tempfile.TemporaryDirectory(prefix="tuner-doctor-") as folder:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder}
        try:
            done = subprocess.run(  # noqa: S603 (a list of arguments, no shell)
                [sys.executable, "-P", "-c", _PROGRAM],
                capture_output=True,
                text=True,
                timeout=_COMPILE_S,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [
                warning("compiling", f"took longer than {_COMPILE_S} s", "top # who has the cores")
            ]
    if done.returncode == 0:
        return [ok("compiling", f"torch compiles for {done.stdout.strip()}")]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return [
        warning(
            "compiling",
            f"torch cannot compile: {lines[-1] if lines else 'its process ended'}",
            "look for a C++ compiler (on GPUs, for Triton) and for room in "
            "TORCHINDUCTOR_CACHE_DIR; cohorts train without, slower",
        )
    ]
