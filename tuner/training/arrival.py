"""Tells whether a model arrives with trained weights: those do not hang on a trial's seed.

A training loop is begun under two seeds, up to where it takes its first optimizer. Layers that
are equal both times are trained, unless they look as if they had just been drawn: a model's code
may seed itself. Training moves biases too, so a layer whose bias is constant has just been drawn.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.domain.regimes import Arrival
from tuner.domain.spec import StudySpec
from tuner.domain.trials import decode, default_proposals
from tuner.training.forks import ending_forks
from tuner.training.loop import TrainingLoop
from tuner.training.rehearsal import Rehearsal
from tuner.training.run import Run
from tuner.training.seeds import undisturbed

_SAMPLED = 4096
"""Values of a tensor that are looked at, evenly spread over it."""

_MOST = 0.5
"""The share of a model's values above which the model is what they are."""

_FEW = 1000
"""Values below which a model's are rather set by its code than trained."""

_DOUBT = 1.95
"""What the largest gap between two samples' distributions, times the root of half their size, stays
below unless they differ: the two-sample Kolmogorov-Smirnov test at one in a thousand."""


@dataclass(frozen=True)
class _Look:
    """What is kept of a model that was seen.

    Attributes:
        values: A digest of each parameter's sampled values, and its size, by name; parameters that
            hold one value alone are left out.
        random: A digest of the state of torch's random generator.
        drawn: The share of the model's values that look as if they had just been drawn.
    """

    values: dict[str, tuple[bytes, int]]
    random: bytes
    drawn: float


class _SeenError(BaseException):
    """Leaves a training loop where it has shown its model; its own handlers let this pass."""


class _Looking(Run):
    """A run that looks at the first model that an optimizer is asked for, and ends there.

    Attributes:
        look: What it has seen, or None.
    """

    look: _Look | None = None

    def optimizer(self, model: nn.Module, name: str | None = None) -> torch.optim.Optimizer:
        """Looks at a model.

        Raises:
            _SeenError: Always.
        """
        random = _digest(torch.get_rng_state())
        with undisturbed(self.device):
            self.look = _Look(dict(_read_values(model)), random, _share_drawn(model))
        raise _SeenError


def detect_arrival(loop: TrainingLoop, spec: StudySpec, device: torch.device) -> Arrival:
    """Returns whether the model that a loop trains arrives with trained weights.

    Two models are built, one after the other, and none is trained. Where it cannot be told, such as
    of weights that are all zero or very few, they count as fresh.

    Args:
        loop: A training loop that has been seen to run.
        spec: The study, resolved.
        device: The device it trains on.
    """
    seed = spec.search.seed
    first = _look_at(loop, spec, seed, device)
    second = None if first is None else _look_at(loop, spec, seed ^ 1, device)
    if first is None or second is None:
        return Arrival.FRESH
    total = sum(size for _, size in first.values.values())
    shared = first.values.items() & second.values.items()
    hang_on_seed = {_layer_of(name) for name in first.values.keys() - dict(shared).keys()}
    kept = sum(size for name, (_, size) in shared if _layer_of(name) not in hang_on_seed)
    if total < _FEW or kept <= _MOST * total:
        return Arrival.FRESH
    seeds_itself = first.random == second.random
    return Arrival.REPEATED if seeds_itself or first.drawn > _MOST else Arrival.TRAINED


def _look_at(loop: TrainingLoop, spec: StudySpec, seed: int, device: torch.device) -> _Look | None:
    """Returns what a loop's first model looks like under a seed; None if it shows none."""
    search = spec.search.model_copy(update={"seed": seed})
    seeded = spec.model_copy(update={"search": search})
    config = decode(spec, default_proposals(spec)[0])
    with undisturbed(device):
        run = _Looking(seeded, config, device=device, reporter=Rehearsal(), at_most=1)
        with contextlib.suppress(_SeenError, SystemExit, Exception), ending_forks():
            loop(run)
    return run.look


def _layer_of(name: str) -> str:
    """Returns the name of the layer that a parameter belongs to."""
    return name.rpartition(".")[0]


def _read_values(model: nn.Module) -> Iterator[tuple[str, tuple[bytes, int]]]:
    for name, parameter in model.named_parameters():
        sample = _sample(parameter)
        if sample is not None:
            yield name, (_digest(sample), parameter.numel())


def _digest(tensor: Tensor) -> bytes:
    return hashlib.blake2b(tensor.numpy().tobytes()).digest()


def _sample(tensor: Tensor | None) -> Tensor | None:
    """Returns values of a tensor, as float64 on the CPU; None if they are none, or all one."""
    if tensor is None or tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return None
    flat = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    flat = flat.detach().reshape(-1)
    sample = flat[:: math.ceil(len(flat) / _SAMPLED)].double().cpu()
    return sample if bool((sample != sample[0]).any()) else None


def _share_drawn(model: nn.Module) -> float:
    """Returns the share of a model's values that look as its layers draw them at first.

    Each layer is copied and drawn anew, and the values of both are compared as samples. One of
    which a vector is constant, as biases often are at first, has been drawn in any case.
    """
    drawn = total = 0
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        samples = {name: _sample(tensor) for name, tensor in own.items()}
        has_constant = any(samples[n] is None and own[n].ndim == 1 < len(own[n]) for n in own)
        anew = _draw_anew(module) if samples else {}
        for name, sample in samples.items():
            if sample is not None:
                other = _sample(anew.get(name))
                is_drawn = has_constant or (other is not None and _are_alike(sample, other))
                total += own[name].numel()
                drawn += own[name].numel() * is_drawn
    return drawn / total if total else 0.0


def _draw_anew(module: nn.Module) -> dict[str, Tensor]:
    """Returns the parameters of a layer's own as it draws them; none if it cannot be asked to."""
    if not callable(getattr(module, "reset_parameters", None)):
        return {}
    try:
        copied = copy.deepcopy(module)
        copied.reset_parameters()  # type: ignore[operator]
    except Exception:  # noqa: BLE001 (a module may raise anything)
        return {}
    return dict(copied.named_parameters(recurse=False))


def _are_alike(one: Tensor, other: Tensor) -> bool:
    """Tells whether two samples of one size may come from one distribution."""
    ends = torch.cat([one, other])
    shares = [
        torch.searchsorted(sample.sort().values, ends, right=True).double() / len(sample)
        for sample in (one, other)
    ]
    return float((shares[0] - shares[1]).abs().max()) * math.sqrt(len(one) / 2) <= _DOUBT
