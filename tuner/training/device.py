"""Where a trial trains, and in which arithmetic."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import torch

from tuner.errors import SpecError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}

_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
"""Signs of exhausted memory in torch's error texts: host, CUDA's runtime, cuBLAS and cuDNN."""

_CGROUP = Path("/sys/fs/cgroup")


def resolve_device(name: str, typed: str | None = None) -> torch.device:
    """Returns the device a user named.

    Args:
        name: ``auto`` (an accelerator if there is one, else the CPU), ``cpu``, ``cuda``,
            ``cuda:0``, ``mps``.
        typed: The name that the user has typed, for messages, where this process sees the device
            by another one.

    Raises:
        SpecError: If there is no such device on this machine.
    """
    typed = typed or name
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpecError(f"--device {typed}: use auto, cpu, cuda, cuda:N or mps.") from None
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise SpecError(f"--device {typed}: this machine has no such device; try --device auto.")
    return device


def expand_devices(text: str) -> list[str]:
    """Returns the devices a user listed, each as :func:`resolve_device` takes it.

    >>> expand_devices("0,cpu")
    Traceback (most recent call last):
    ...
    tuner.errors.SpecError: --devices 0,cpu: use all, cpu, or the numbers of CUDA devices: 0,1.

    Args:
        text: ``all`` (every CUDA device, else what ``auto`` means), ``cpu``, or ``0,1``.

    Raises:
        SpecError: If it is none of these, or this machine lacks one of them.
    """
    if text == "all":
        found = torch.cuda.device_count()
        return [f"cuda:{number}" for number in range(found)] or [str(resolve_device("auto"))]
    if text == "cpu":
        return [text]
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise SpecError(f"--devices {text}: use all, cpu, or the numbers of CUDA devices: 0,1.")
    found = torch.cuda.device_count()
    if any(int(word) >= found for word in words):
        raise SpecError(f"--devices {text}: this machine has {found} CUDA devices; try all.")
    return [f"cuda:{number}" for number in dict.fromkeys(map(int, words))]


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """Returns the type of parameters and data for a precision of the study.

    Raises:
        SpecError: If the device cannot compute in it.
    """
    if precision == "float64" and device.type == "mps":
        raise SpecError('train.precision = "float64": not on mps; use float32 or --device cpu.')
    return _DTYPES[precision]


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns a tensor in a type of real numbers: complex ones in its twin, integers as they are.

    >>> cast(torch.ones(1, dtype=torch.complex64), torch.float64).dtype
    torch.complex128
    """
    if tensor.is_complex():
        return tensor.to(dtype.to_complex())
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def is_mixed(precision: str) -> bool:
    """Returns whether a forward pass of this precision runs under autocast."""
    return precision == "bfloat16"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Returns the context of a forward pass: bfloat16 autocast, or nothing."""
    if is_mixed(precision):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def wait_for(device: torch.device) -> None:
    """Waits until a device has finished its queued work; a CPU has none."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an exception means that memory ran out, on the device or the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)


def free_bytes(device: torch.device) -> float:
    """Returns how much memory is free, of the device or the host; infinite if nobody can say."""
    if device.type == "cuda":
        # What this process has kept of tensors that are gone, it uses again.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    free = [math.inf]
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            free.append(1024.0 * int(line.split()[1]))
    # A container may have less than its host.
    most, used = (_read(_CGROUP / name).strip() for name in ("memory.max", "memory.current"))
    if most.isdecimal() and used.isdecimal():
        free.append(float(int(most) - int(used)))
    return max(0.0, min(free))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
