"""Trains a generator against a discriminator, each with an optimizer of its own."""

import torch
from torch import nn
from torch.nn.functional import softplus


def make_points(count):
    angle = 2 * torch.pi * torch.rand(count)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(count, 2)


@torch.no_grad()
def test(generator):
    """Returns how far the generator's points lie from the circle, and how unevenly on it."""
    points = generator(torch.randn(1024, 4, generator=torch.Generator().manual_seed(1)))
    return ((points.norm(dim=1) - 1).square().mean() + points.mean(0).square().sum()).item()


def train(run):
    torch.manual_seed(run.seed)
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    discriminator = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
    g_optimizer = run.optimizer(generator, name="generator")
    d_optimizer = run.optimizer(discriminator, name="discriminator")
    for step in run.steps():
        made = generator(torch.randn(64, 4))
        d_optimizer.zero_grad()
        real, fake = discriminator(make_points(64)), discriminator(made.detach())
        (softplus(-real) + softplus(fake)).mean().backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        softplus(-discriminator(made)).mean().backward()
        g_optimizer.step()
        if run.due():
            run.report(val_loss=test(generator))
    return test(generator)
