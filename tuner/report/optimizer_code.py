"""The winner's optimizer as Python that needs only torch, and the package it comes from if any."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from tuner.analysis.summary import BestTrial
from tuner.domain.calls import Call, rate_key
from tuner.domain.groups import REST, GroupValues, assign_group, group_settings
from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec

_PACKAGES = {"pytorch_optimizer": "pytorch-optimizer", "tuner": "tuner"}

_SELECTIONS = {
    "all": "[p for p in model.parameters() if p.requires_grad]",
    "matrices": "[p for p in model.parameters() if p.requires_grad and p.ndim == 2]",
    "others": "[p for p in model.parameters() if p.requires_grad and p.ndim != 2]",
    "sparse": """[
        p
        for p in model.parameters()
        if p.requires_grad
        and any(
            p is m.weight
            for m in model.modules()
            if isinstance(m, (torch.nn.Embedding, torch.nn.EmbeddingBag)) and m.sparse
        )
    ]""",
    "dense": "[p for p in model.parameters()"
    " if p.requires_grad and all(p is not weight for weight in sparse)]",
}


@dataclass(frozen=True)
class OptimizerCode:
    """Lines of Python that build an optimizer, or two over parts of a model, as it was trained.

    Attributes:
        calls: The constructors that make it up.
        groups: Its parameter groups.
        spare_vectors: Whether biases and norms are spared from weight decay.
        switches: Whether it trains other weights than it evaluates.
        standing: Where the schedule stands in a loop over ``step``, as Python.
    """

    calls: tuple[Call, ...]
    groups: tuple[GroupValues, ...]
    spare_vectors: bool
    switches: bool = False
    standing: str = "step"

    @classmethod
    def of(cls, best: BestTrial, spec: StudySpec, standing: str = "step") -> OptimizerCode:
        """Returns the code of a trial's optimizer, whose schedule stands somewhere at a step."""
        config = best.config
        row = OPTIMIZERS[config.optimizer]
        calls = row.calls(config.optimizer_values, best.full_steps)
        spared = spec.train.no_decay_on_biases_and_norms
        return cls(calls, config.groups, spared, row.switches, standing)

    @property
    def several(self) -> bool:
        """Whether there are two optimizers."""
        return len(self.calls) > 1

    @property
    def rate(self) -> str:
        """What its learning rate is called where a schedule drives it."""
        return rate_key(self.calls[0].arguments)

    @property
    def packages(self) -> list[str]:
        """The packages beside torch that it is imported from."""
        roots = {target.partition(".")[0] for call in self.calls for target in call.targets}
        return sorted(roots & _PACKAGES.keys())

    @property
    def remarks(self) -> list[str]:
        """The lines of comment that say what it needs."""
        lines = []
        if self.packages:
            names = [_PACKAGES[package] for package in self.packages]
            lines += [f"# Install torch, {' and '.join(names)} to run it."]
        if self.switches:
            lines += [
                "# It trains other weights than it evaluates: call optimizer.eval() before each",
                "# evaluation and before the model is saved for use, optimizer.train() after it.",
            ]
        return lines

    @property
    def freezes(self) -> bool:
        """Whether a group is frozen for a while."""
        return any(group.frozen_until for group in self.groups)

    @property
    def constants(self) -> list[str]:
        """The lines that say which parameters belong to which group."""
        if not self._grouped:
            return []
        return [f"MATCHES = {[(group.name, group.match) for group in self.groups]!r}"]

    @property
    def definitions(self) -> list[str]:
        """The lines that define ``build_optimizer``, or ``build_optimizers`` where it is two."""
        parts = [self._several() if self.several else self._single()]
        if self._grouped:
            parts = [inspect.getsource(assign_group).rstrip(), self._split(), *parts]
        if self.freezes:
            freeze = _FREEZE_COUNTING if "pytorch_optimizer" in self.packages else _FREEZE
            parts += [freeze.replace("step / STEPS", f"{self.standing} / STEPS")]
        return "\n\n\n".join(parts).splitlines()

    @property
    def _grouped(self) -> bool:
        return bool(self.groups) or self.spare_vectors

    def _single(self) -> str:
        [call] = self.calls
        return f'''def build_optimizer(model):
    """Returns the optimizer."""
    parameters = {_SELECTIONS[call.parameters]}
    return {self._constructor(call, "parameters")}'''

    def _several(self) -> str:
        lines = [
            "def build_optimizers(model):",
            '    """Returns the optimizers: for a part, and for the rest if any; step all."""',
            "    optimizers = []",
        ]
        for call in self.calls:
            lines += [
                f"    {call.parameters} = {_SELECTIONS[call.parameters]}",
                f"    if {call.parameters}:",
                f"        optimizers.append({self._constructor(call, call.parameters)})",
            ]
        return "\n".join([*lines, "    return optimizers"])

    def _constructor(self, call: Call, parameters: str) -> str:
        arguments = "".join(f", {key}={value!r}" for key, value in call.arguments.items())
        if self._grouped:
            parameters = f"split(model, {parameters}, {self._settings(call)})"
        code = f"{call.target}({parameters}{arguments})"
        if call.wrapper is not None:
            around = "".join(f", {key}={value!r}" for key, value in call.wrapper.arguments.items())
            code = f"{call.wrapper.target}({code}{around})"
        return code

    def _settings(self, call: Call) -> str:
        """Returns what each group changes, as a literal."""
        lines = []
        for values in (*self.groups, GroupValues(REST, "*")):
            for spared in (False, True) if self.spare_vectors else (False,):
                settings = group_settings(call, values, spared=spared)
                name = settings.pop("name")
                lines.append(f"        {name!r}: {settings!r},\n")
        return "{\n" + "".join(lines) + "    }"

    def _split(self) -> str:
        spare = (
            """            if parameter.ndim < 2:
                group += " (no decay)"
"""
            if self.spare_vectors
            else ""
        )
        return f'''def split(model, parameters, settings):
    """Returns parameter groups of those parameters, each with its own settings."""
    groups = {{}}
    for name, parameter in model.named_parameters():
        if any(parameter is p for p in parameters):
            group = assign_group(name, MATCHES)
{spare}            groups.setdefault(group, []).append(parameter)
    return [{{"params": own, "name": name, **settings[name]}} for name, own in groups.items()]'''


_FREEZE = '''def freeze(optimizer, step):
    """Freezes and thaws an optimizer's groups; call it at the start of every step, from 0."""
    for group in optimizer.param_groups:
        if until := group.get("frozen_until"):
            for parameter in group["params"]:
                parameter.requires_grad_(until < 1 and step / STEPS >= until)'''

# Steps are counted by group there, and those of a group that is trained from some point on start
# then.
_FREEZE_COUNTING = _FREEZE.replace(
    """            for parameter in""",
    """            if not group["params"][0].requires_grad:
                counted = ("step", "weight_sum", "lr_max")
                for key in counted:
                    group.pop(key, None)
                group.update({k: v for k, v in optimizer.defaults.items() if k in counted})
            for parameter in""",
)
