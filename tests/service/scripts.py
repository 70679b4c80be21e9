"""Scripts as people write them, each with its own loop, tuned by the few lines they would change.

``run`` is a trial's, or whoever stands in for it once a winner is put back by hand: it gives
optimizer and schedule, and takes reports. None of them uses ``run.steps``.
"""

from __future__ import annotations

import argparse
import runpy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

EPOCHS, BATCH, TRAINED = 4, 16, 128
EPOCH = TRAINED // BATCH
STEPS = EPOCHS * EPOCH


def examples() -> tuple[Tensor, Tensor]:
    x = torch.randn(TRAINED + 64, 6, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] * x[:, 1] > 0).long()


def loader_of(**options: Any) -> DataLoader[Any]:
    x, y = examples()
    return DataLoader(TensorDataset(x[:TRAINED], y[:TRAINED]), batch_size=BATCH, **options)


def network(*, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(16)] if norm else []
    return nn.Sequential(nn.Linear(6, 16), *middle, nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 2))


@torch.no_grad()
def test(model: nn.Module) -> float:
    model.eval()
    x, y = examples()
    loss = cross_entropy(model(x[TRAINED:]), y[TRAINED:]).item()
    model.train()
    return loss


def nested_epochs(run: Any) -> float:
    """The example of every tutorial: two loops, a schedule by epoch, a test after each."""
    model, loader = network(), loader_of(shuffle=True)
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    val_loss = test(model)
    for _epoch in range(EPOCHS):
        for x, y in loader:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
        val_loss = test(model)
        run.report(val_loss=val_loss)
        schedule.step()
    return val_loss


def with_arguments(run: Any) -> float:
    """A script with a command line of its own, whose defaults a trial takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--log-interval", type=int, default=3)
    args = parser.parse_args([])
    model, loader = network(norm=True), loader_of(shuffle=True)
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    for epoch in range(args.epochs):
        for index, (x, y) in enumerate(loader):
            optimizer.zero_grad(set_to_none=False)
            loss = cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if index % args.log_interval == 0:
                run.log(train_loss=loss)
        run.report((epoch + 1) * len(loader) - 1, val_loss=test(model))
    return test(model)


class Trainer:
    """A trainer with callbacks: it owns the loop, and says when an epoch is over."""

    def __init__(self, model: nn.Module, optimizers: tuple[Any, Any], callbacks: list[Any]) -> None:
        self.model, (self.optimizer, self.scheduler) = model, optimizers
        self.callbacks = callbacks

    def train(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for _epoch in range(EPOCHS):
            for x, y in loader_of(shuffle=True):
                self.model.zero_grad()
                cross_entropy(self.model(x), y).backward()
                self.optimizer.step()
                self.scheduler.step()
            metrics = {"eval_loss": test(self.model)}
            for callback in self.callbacks:
                callback.on_evaluate(metrics)
        return metrics


def trainer_with_callback(run: Any) -> float:
    """A trainer that takes optimizer and schedule, and tells a callback its metrics."""

    class Report:
        def on_evaluate(self, metrics: dict[str, float]) -> None:
            run.report(val_loss=metrics["eval_loss"])

    model = network()
    optimizer = run.optimizer(model)
    trainer = Trainer(model, (optimizer, run.schedule(optimizer)), [Report()])
    return trainer.train()["eval_loss"]


def configured(run: Any) -> float:
    """A module that configures its optimizers and is stepped through a closure, as by Lightning."""

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def configure_optimizers(self) -> dict[str, Any]:
            optimizer = run.optimizer(self)
            return {"optimizer": optimizer, "lr_scheduler": run.schedule(optimizer)}

        def training_step(self, batch: Any) -> Tensor:
            return cross_entropy(self.net(batch[0]), batch[1])

    module = Module()
    parts = module.configure_optimizers()
    optimizer, schedule = parts["optimizer"], parts["lr_scheduler"]

    def closure(batch: Any) -> Tensor:
        loss = module.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        return loss

    for _epoch in range(EPOCHS):
        for batch in loader_of(shuffle=True):
            optimizer.step(lambda batch=batch: closure(batch))
            schedule.step()
        run.report(val_loss=test(module.net))
    return test(module.net)


class Wrapped:
    """An optimizer in a wrapper that is none itself, as by Accelerate."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.syncs = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)

    def step(self) -> None:
        if self.syncs:
            self.optimizer.step()

    def zero_grad(self) -> None:
        if self.syncs:
            self.optimizer.zero_grad()


def wrapped(run: Any) -> float:
    """An optimizer in a wrapper that steps at every second call, the schedule with it."""
    model = network()
    inner = run.optimizer(model)
    optimizer, schedule, calls = Wrapped(inner), run.schedule(inner), 0
    for _epoch in range(2 * EPOCHS):
        for x, y in loader_of(shuffle=True):
            calls += 1
            optimizer.syncs = calls % 2 == 0
            (cross_entropy(model(x), y) / 2).backward()
            optimizer.step()
            if optimizer.syncs:
                schedule.step()
            optimizer.zero_grad()
        run.report(val_loss=test(model))
    return test(model)


class Estimator:
    """What has fit and score, and is handed a function that makes its optimizer, as in skorch."""

    def __init__(self, optimizer: Callable[[nn.Module], Any], callbacks: list[Any]) -> None:
        self.optimizer, self.callbacks = optimizer, callbacks

    def fit(self, x: Tensor, y: Tensor) -> Estimator:
        self.module = network()
        optimizer = self.optimizer(self.module)
        for _epoch in range(EPOCHS):
            for rows in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                cross_entropy(self.module(x[rows]), y[rows]).backward()
                optimizer.step()
            for callback in self.callbacks:
                callback(self)
        return self

    def score(self) -> float:
        return -test(self.module)


def estimator(run: Any) -> float:
    """An estimator, with no schedule."""
    x, y = examples()
    fitted = Estimator(run.optimizer, [lambda net: run.report(val_loss=-net.score())])
    return -fitted.fit(x[:TRAINED], y[:TRAINED]).score()


def with_own_average(run: Any) -> float:
    """Counts updates, and tests an average of its own, as timm's training script does."""
    model = network()
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8)
    )
    optimizer = run.optimizer(model)
    schedule, updates = run.schedule(optimizer), 0
    for _epoch in range(EPOCHS):
        for x, y in loader_of(shuffle=True):
            optimizer.zero_grad()
            cross_entropy(model(x), y, label_smoothing=0.1).backward()
            optimizer.step()
            updates += 1
            average.update_parameters(model)
            schedule.step()
        run.report(updates - 1, val_loss=test(average))
    return test(average)


def full_batches(run: Any) -> float:
    """One batch, and an optimizer that may call the closure more than once."""
    x, y = examples()
    model = network()
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(x[:TRAINED]), y[:TRAINED])
        loss.backward()
        return loss

    for step in range(STEPS):
        optimizer.step(closure)
        schedule.step()
        if (step + 1) % EPOCH == 0:
            run.report(val_loss=test(model))
    return test(model)


def two_networks(run: Any) -> float:
    """A generator and a discriminator of equal parameter names, the latter stepped twice."""
    real, _ = examples()
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 6))
    discriminator = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    g_optimizer = run.optimizer(generator, name="generator")
    d_optimizer = run.optimizer(discriminator, name="discriminator")
    schedules = [run.schedule(g_optimizer), run.schedule(d_optimizer)]
    score = float("inf")
    for step in range(STEPS):
        for _ in range(2):
            fake = generator(torch.randn(BATCH, 3)).detach()
            rows = real[torch.randint(len(real), (BATCH,))]
            d_optimizer.zero_grad()
            (discriminator(rows) - 1).square().mean().add(
                discriminator(fake).square().mean()
            ).backward()
            d_optimizer.step()
            schedules[1].step()
        g_optimizer.zero_grad()
        (discriminator(generator(torch.randn(BATCH, 3))) - 1).square().mean().backward()
        g_optimizer.step()
        schedules[0].step()
        if (step + 1) % EPOCH == 0:
            with torch.no_grad():
                made = generator(torch.randn(64, 3, generator=torch.Generator().manual_seed(2)))
            score = mse_loss(made.std(0), real.std(0)).item()
            run.report(val_loss=score)
    return score


def accumulating_with_scaler(run: Any) -> float:
    """Gradients of several batches, scaled; the scaler may leave a step out."""
    model = network()
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5)
    for _epoch in range(2 * EPOCHS):
        for index, (x, y) in enumerate(loader_of(shuffle=True)):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = cross_entropy(model(x).float(), y) / 2
            scaler.scale(loss).backward()
            if index % 2:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                schedule.step()
        run.report(val_loss=test(model))
    return test(model)


def policy(run: Any) -> float:
    """Reinforcement learning: rollouts, a few passes over each, and a return to maximise."""
    torch.manual_seed(0)
    actor, critic = nn.Linear(4, 3), nn.Linear(4, 1)
    agent = nn.ModuleDict({"actor": actor, "critic": critic})
    optimizer = run.optimizer(agent)
    schedule, reward = run.schedule(optimizer), 0.0
    for _iteration in range(EPOCHS):
        states = torch.randn(64, 4)
        with torch.no_grad():
            old = torch.distributions.Categorical(logits=actor(states))
            actions = old.sample()
            before = old.log_prob(actions)
        rewards = (actions == states[:, :3].argmax(1)).float()
        for _ in range(EPOCH):
            now = torch.distributions.Categorical(logits=actor(states))
            gain = rewards - critic(states).squeeze(1)
            ratio = (now.log_prob(actions) - before).exp()
            clipped = ratio.clamp(0.8, 1.2)
            loss = -torch.min(ratio * gain.detach(), clipped * gain.detach()).mean()
            optimizer.zero_grad()
            (loss + 0.5 * gain.square().mean() - 0.01 * now.entropy().mean()).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            fixed = torch.randn(256, 4, generator=torch.Generator().manual_seed(3))
            reward = (actor(fixed).argmax(1) == fixed[:, :3].argmax(1)).float().mean().item()
        run.report(episode_return=reward)
    return reward


_MODULE_LEVEL = """
import torch
from torch import nn

torch.manual_seed(0)
max_iters, eval_interval = {steps}, {epoch}
x = torch.randint(8, (256,), generator=torch.Generator().manual_seed(4))
model = nn.ModuleDict({{"wte": nn.Embedding(8, 16), "mlp": nn.Linear(16, 16),
                       "lm_head": nn.Linear(16, 8, bias=False)}})
model["lm_head"].weight = model["wte"].weight  # tied


def forward(tokens):
    hidden = model["wte"](tokens)
    return model["lm_head"](hidden + torch.relu(model["mlp"](hidden)))


def get_batch():
    at = torch.randint(len(x) - 1, (16,))
    return x[at], (3 * x[at] + 1) % 8


@torch.no_grad()
def estimate_loss():
    return nn.functional.cross_entropy(forward(x), (3 * x + 1) % 8).item()


optimizer = run.optimizer(model)
schedule = run.schedule(optimizer)
iter_num = 0
while True:
    inputs, targets = get_batch()
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(forward(inputs), targets).backward()
    optimizer.step()
    schedule.step()
    iter_num += 1
    if iter_num % eval_interval == 0:
        run.report(val_loss=estimate_loss())
    if iter_num >= max_iters:
        break
val_loss = estimate_loss()
"""


def module_level(run: Any) -> float:
    """A script that trains as it is imported, as nanoGPT's does, run anew for each trial."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "script.py")
        path.write_text(_MODULE_LEVEL.format(steps=STEPS, epoch=EPOCH))
        value: float = runpy.run_path(str(path), init_globals={"run": run})["val_loss"]
    return value


class Stream(IterableDataset[Any]):
    """Examples that come without a length."""

    def __iter__(self) -> Iterator[Any]:
        x, y = examples()
        return iter(zip(x[:TRAINED], y[:TRAINED], strict=True))


def streaming(run: Any) -> float:
    """Takes examples as they come, and counts its steps itself."""
    model, step = network(), 0
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    while step < STEPS:
        for x, y in DataLoader(Stream(), batch_size=BATCH):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % EPOCH == 0:
                run.report(step, val_loss=test(model))
            step += 1
    return test(model)


def stopping_early(run: Any) -> float:
    """Ends when it has seen enough, and says so."""
    model, best, waited = network(), float("inf"), 0
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    for _epoch in range(EPOCHS):
        for x, y in loader_of(shuffle=True):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
        found = test(model)
        run.report(val_loss=found)
        waited = 0 if found < best - 0.5 else waited + 1
        best = min(best, found)
        if waited == 2:
            run.stop("no gain for 2 epochs")
            break
    return test(model)


SCRIPTS: dict[str, Callable[[Any], float]] = {
    script.__name__: script
    for script in (
        nested_epochs,
        with_arguments,
        trainer_with_callback,
        configured,
        wrapped,
        estimator,
        with_own_average,
        full_batches,
        two_networks,
        accumulating_with_scaler,
        policy,
        module_level,
        streaming,
        stopping_early,
    )
}
