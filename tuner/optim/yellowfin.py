"""YellowFin: momentum SGD that tunes its own learning rate and momentum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from tuner.errors import SpecError, WorkloadError
from tuner.optim.tensor_lists import add_scaled, densify, share_of_nonzero, total_norm
from tuner.optim.yellowfin_closed_loop import ClosedLoop
from tuner.optim.yellowfin_statistics import FIRST_RATE, SLOW_START, Measurement

LONGEST_STEP = 100.0
"""The longest step, as a Euclidean norm, that adaptive clipping lets through."""

RESULTS = ("lr", "momentum")
"""The keys under which a parameter group shows the results of the last step."""


class YellowFin(torch.optim.Optimizer):
    """SGD that tunes its momentum and learning rate from the gradients that it meets.

    From running averages it estimates the range of the curvature (by squared norms of the
    gradient), the variance of the gradient and the distance to the optimum, and takes the
    momentum and learning rate that would bring a noisy quadratic like that closest to its optimum
    in one step. Nothing needs tuning but, where the last percents count, ``lr_factor``. The
    learning rate starts slowly, over the first ``slow_start_steps``.

    After a step, ``param_groups[i]["lr"]`` and ``["momentum"]`` hold the applied values, as scalar
    tensors on the parameters' device: a step never waits for the device, and ``float(...)`` does.
    They are results. Schedules drive ``lr_factor`` instead, as tuner's own do; a scheduler that
    writes ``lr`` or ``momentum`` is refused at the next step.

    - All groups are measured as one gradient; ``lr_factor``, ``weight_decay``, ``nesterov`` and
      ``measure_decay`` may differ between them.
    - A parameter without a gradient is left alone, and its gradient not measured. Sparse
      gradients are made dense, since every coordinate has momentum.
    - Sums and momentum are kept in float32 where parameters have less.
    - A gradient that is not finite, or whose norm float32 cannot hold, makes all parameters,
      rates and averages NaN, then and from then on, with clipping too: nothing hides that
      training has diverged.

    Zhang and Mitliagkas, "YellowFin and the Art of Momentum Tuning", arXiv:1706.03471: algorithms
    1 to 4, and its closed loop. Where paper and authors' release differ (slow start, nothing
    smoothed after tuning, adaptive clipping), this follows the release, and reproduces it.

    Args:
        params: Parameters, or groups of them, all on one device.
        lr_factor: The factor on the tuned learning rate, at least 0.
        beta: The part of its averages that a step keeps, in (0, 1).
        window: Steps over which the extremes of the curvature are taken, at least 1.
        adapt_clip: Whether to clip gradients far beyond the usual: to 10 times the usual largest
            norm where they are measured, and to it where they move parameters.
        weight_decay: L2 penalty as in ``torch.optim.SGD``, at least 0: this times the parameter
            joins the gradient that moves it, after any clipping.
        nesterov: Whether to look ahead along the momentum, as in ``torch.optim.SGD``.
        measure_decay: Whether the penalty is part of the measured (and clipped) gradient as well.
        sparsity_debias: Whether to account for coordinates where the gradient is zero, as with
            large embeddings.
        closed_loop: For asynchronous training, where old gradients act as momentum: whether to
            measure the momentum that training shows in all and to steer it to the tuned one.
            Applied momentum may then be negative.
        staleness: The age, in updates, of the parameters that a gradient was computed at; for
            M workers in turn M − 1. Only the closed loop uses it.
        gain: The part of the gap between measured and tuned momentum that a step of the closed
            loop closes, in (0, 1].

    Raises:
        SpecError: If a value is outside its range, or parameters are not of floating point.

    >>> x = torch.tensor([4.0, -2.0], requires_grad=True)
    >>> optimizer = YellowFin([x], lr_factor=0.5)
    >>> for _ in range(400):
    ...     optimizer.zero_grad()
    ...     x.square().sum().backward()
    ...     optimizer.step()
    >>> bool(x.norm() < 0.1), float(optimizer.param_groups[0]["lr"]) > 1e-4
    (True, True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr_factor: float = 1.0,
        *,
        beta: float = 0.999,
        window: int = 20,
        adapt_clip: bool = True,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        measure_decay: bool = False,
        sparsity_debias: bool = False,
        closed_loop: bool = False,
        staleness: int = 0,
        gain: float = 0.01,
    ) -> None:
        _require(0 < beta < 1, "beta", beta, "between 0 and 1, such as 0.999")
        _require(window >= 1, "window", window, "at least 1, such as 20")
        _require(staleness >= 0, "staleness", staleness, "at least 0")
        _require(0 < gain <= 1, "gain", gain, "above 0 and at most 1, such as 0.01")
        # Shared by all groups, so not among torch's defaults, which a group could replace.
        self._shared: dict[str, Any] = {
            "beta": beta,
            "window": window,
            "adapt_clip": adapt_clip,
            "sparsity_debias": sparsity_debias,
            "closed_loop": closed_loop,
            "staleness": staleness,
            "gain": gain,
        }
        self._measurement: Measurement | None = None
        self._loop: ClosedLoop | None = None
        self._results: dict[int, list[tuple[Any, int]]] = {}
        defaults = {
            "lr_factor": lr_factor,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "measure_decay": measure_decay,
        }
        super().__init__(params, defaults)

    @property
    def slow_start_steps(self) -> int:
        """Steps until the learning rate is no longer held down."""
        return SLOW_START * int(self._shared["window"])

    @property
    def measured(self) -> dict[str, Tensor]:
        """The measurements of the last step, as scalars on the device; empty before the first one.

        ``h_min`` and ``h_max`` (range of the curvature), ``grad_var``, ``dist_to_opt``,
        ``target_momentum``; in the closed loop also ``total_momentum``, which is NaN until there
        are enough steps to compare, and where nothing moves.
        """
        if self._measurement is None:
            return {}
        seen = {"total_momentum": self._loop.total} if self._loop else {}
        return self._measurement.values | seen

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters to be trained from now on; they join the same measurement.

        Args:
            param_group: As everywhere in torch, with values of its own for ``lr_factor``,
                ``weight_decay``, ``nesterov`` and ``measure_decay``.

        Raises:
            SpecError: If a value is outside its range or cannot be a group's, or parameters are
                not of floating point.
        """
        # A group that was frozen comes back with the results it had.
        refused = {*self._shared, *(() if self._is_untouched(param_group) else RESULTS)}
        for name in sorted(refused & param_group.keys()):
            raise SpecError(
                f"{name} = {param_group[name]!r} in a parameter group: a group of YellowFin has "
                "lr_factor, weight_decay, nesterov and measure_decay of its own; lr and momentum "
                "are measured, and everything else is given to YellowFin itself."
            )
        for name in ("lr_factor", "weight_decay"):
            value = param_group.get(name, self.defaults[name])
            _require(value >= 0, name, value, "at least 0")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for parameter in group["params"]:
            if not parameter.is_floating_point():
                self.param_groups.pop()
                raise SpecError(
                    f"A parameter of {parameter.dtype}: YellowFin trains those of floating point; "
                    "leave it out, or train it with another optimizer."
                )
        for name, first in (("lr", FIRST_RATE * group["lr_factor"]), ("momentum", 0.0)):
            group.setdefault(name, torch.tensor(first, dtype=torch.float64))
        self._remember(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Measures the gradient, tunes, and moves the parameters.

        Args:
            closure: Reevaluates the model and returns the loss; called once.

        Raises:
            WorkloadError: If something else wrote a group's ``lr`` or ``momentum``, or gradients
                are on several devices.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._refuse_writers(group)
        blocks = [self._gather(group) for group in self.param_groups]
        gradients = [gradient for block in blocks for gradient in block.gradients]
        if not gradients:
            return loss
        measurement = self._measurement or self._start({g.device for g in gradients})
        sums = [total for block in blocks for total in block.sums]
        norm = total_norm(gradients)
        measuring, moving = measurement.clip(norm)
        decay, weight = measurement.discount()
        if decay != 1:
            torch._foreach_mul_([state["gradient_sum"] for state in self.state.values()], decay)
        add_scaled(sums, gradients, measuring * weight)
        density = share_of_nonzero(gradients) if self._shared["sparsity_debias"] else None
        tuning = measurement.update(norm * measuring, total_norm(sums), density)
        momentum = self._loop.applied(self._parameters()) if self._loop else tuning.momentum
        longest = (norm * moving).reciprocal() * LONGEST_STEP
        for block in blocks:
            rate = tuning.lr * block.group["lr_factor"]
            if self._shared["adapt_clip"]:
                rate = torch.minimum(rate, longest)
            block.move(rate, momentum, moving)
            # New tensors: whoever kept those of an earlier step has that step's values.
            block.group["lr"], block.group["momentum"] = rate, momentum
            self._remember(block.group)
        if self._loop is not None:
            self._close(self._loop, blocks, tuning.momentum, moving)
        return loss

    def _gather(self, group: dict[str, Any]) -> _Block:
        """Returns the tensors of a group's step; parameters without a gradient are left out."""
        parameters = [p for p in group["params"] if p.grad is not None]
        gradients = [densify(p.grad) for p in parameters]
        if group["measure_decay"] and group["weight_decay"]:
            decay = group["weight_decay"]
            gradients = [
                gradient.add(parameter, alpha=decay)
                for gradient, parameter in zip(gradients, parameters, strict=True)
            ]
        states = [self.state[p] for p in parameters]
        for state, gradient in zip(states, gradients, strict=True):
            if not state:
                state["gradient_sum"] = torch.zeros_like(gradient)
                state["momentum_buffer"] = torch.zeros_like(gradient)
        sums = [state["gradient_sum"] for state in states]
        return _Block(group, parameters, gradients, sums, [s["momentum_buffer"] for s in states])

    def _start(self, devices: set[torch.device]) -> Measurement:
        if len(devices) > 1:
            raise WorkloadError(
                f"Gradients on {', '.join(sorted(map(str, devices)))}: YellowFin measures one "
                "gradient on one device; choose another optimizer for a model on several."
            )
        device, shared = next(iter(devices)), self._shared
        self._measurement = Measurement(
            device,
            beta=shared["beta"],
            window=shared["window"],
            adapt_clip=shared["adapt_clip"],
            sparse=shared["sparsity_debias"],
        )
        self._loop = None
        if shared["closed_loop"]:
            self._loop = ClosedLoop(device, staleness=shared["staleness"], gain=shared["gain"])
        return self._measurement

    def _close(
        self, loop: ClosedLoop, blocks: Sequence[_Block], target: Tensor, scale: Tensor
    ) -> None:
        """Gives the closed loop the step just taken, of which it estimates the total momentum."""
        taken = {
            id(parameter): (gradient, block.group["lr"] * scale)
            for block in blocks
            for parameter, gradient in zip(block.parameters, block.gradients, strict=True)
        }
        parameters = self._parameters()
        still = torch.zeros_like(scale)
        pairs = [taken.get(id(p)) or (torch.zeros_like(p), still) for p in parameters]
        gradients, rates = zip(*pairs, strict=True)
        loop.close(target, parameters, gradients, rates)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _remember(self, group: dict[str, Any]) -> None:
        """Notes a group's results, to recognise those that someone else wrote."""
        self._results[id(group)] = [(group[name], _version(group[name])) for name in RESULTS]

    def _is_untouched(self, group: dict[str, Any]) -> bool:
        """Tells whether a group's results are the ones that were put there."""
        now = [(group.get(name), _version(group.get(name))) for name in RESULTS]
        known = self._results.get(id(group), [])
        return len(known) == len(now) and all(
            value is former and version == before
            for (value, version), (former, before) in zip(now, known, strict=True)
        )

    def _refuse_writers(self, group: dict[str, Any]) -> None:
        if not self._is_untouched(group):
            raise WorkloadError(
                f"Something wrote lr = {float(group['lr']):.4g} or momentum = "
                f"{float(group['momentum']):.4g} into a parameter group of YellowFin, probably a "
                "scheduler, but YellowFin tunes both and would ignore it. Have the schedule drive "
                "lr_factor: use tuner's (tuner.optim.build_schedule, run.schedule), or write "
                'group["lr_factor"] before each step.'
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns the complete state: settings, averages and measurements."""
        return super().state_dict() | {
            "shared": dict(self._shared),
            "measurement": self._measurement and self._measurement.state_dict(),
            "loop": self._loop and self._loop.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a copy of a state of :meth:`state_dict`, bit for bit, settings included.

        Raises:
            SpecError: If the state is of another optimizer.
        """
        if "measurement" not in state_dict:
            raise SpecError(
                f"The state has {', '.join(state_dict)}, and nothing measured: it is not of "
                "YellowFin. Load it into the optimizer it came from."
            )
        super().load_state_dict(state_dict)
        # Torch has cast the sums to the parameters' type, and shares the tensors it did not cast.
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        for index, parameter in zip(saved, self._parameters(), strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                self.state[parameter][name] = value.to(parameter.device, copy=True)
        self._shared = dict(state_dict["shared"])
        self._measurement = None
        if state_dict["measurement"] is not None:
            measurement = self._start({self._parameters()[0].device})
            measurement.load_state_dict(state_dict["measurement"])
        if state_dict["loop"] is not None and self._loop is not None:
            self._loop.load_state_dict(state_dict["loop"])

    def __getstate__(self) -> dict[str, Any]:
        own = ("_shared", "_measurement", "_loop")
        return super().__getstate__() | {name: getattr(self, name) for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._results = {}
        for group in self.param_groups:
            self._remember(group)


@dataclass(frozen=True)
class _Block:
    """The parameters of a group that have a gradient, and the tensors that belong to each.

    Attributes:
        group: The group.
        parameters: The parameters.
        gradients: Their gradients, as measured.
        sums: Sums of these, in which the past counts ever less.
        buffers: Sums of the gradients they were moved by, discounted by the momentum.
    """

    group: dict[str, Any]
    parameters: list[Tensor]
    gradients: list[Tensor]
    sums: list[Tensor]
    buffers: list[Tensor]

    def move(self, rate: Tensor, momentum: Tensor, scale: Tensor) -> None:
        """Moves the parameters.

        Args:
            rate: The learning rate.
            momentum: The momentum.
            scale: The factor, in [0, 1], on the gradient.
        """
        if not self.parameters:
            return
        decay = 0.0 if self.group["measure_decay"] else self.group["weight_decay"]
        torch._foreach_mul_(self.buffers, momentum)
        add_scaled(self.buffers, self.gradients, scale)
        if decay:
            torch._foreach_add_(self.buffers, self.parameters, alpha=decay)
        if not self.group["nesterov"]:
            add_scaled(self.parameters, self.buffers, rate, sign=-1)
            return
        if decay:
            torch._foreach_mul_(self.parameters, 1 - rate * decay)
        add_scaled(self.parameters, self.gradients, rate * scale, sign=-1)
        add_scaled(self.parameters, self.buffers, rate * momentum, sign=-1)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise SpecError(f"{name} = {value!r}: choose a value {rule}.")


def _version(value: object) -> int:
    """Returns how often a tensor was written in place; 0 where that is not counted."""
    counted = isinstance(value, Tensor) and not value.is_inference()
    return value._version if counted else 0  # type: ignore[attr-defined]  # noqa: SLF001
