"""The reader's loop."""

from mine import build_loader, build_model, evaluate, train_step

import tuner


def train(run: tuner.Run) -> float:
    """Trains one trial."""
    model = build_model().to(run.device)
    loader = build_loader()
    optimizer = run.optimizer(model)
    for _, batch in run.steps(loader):
        train_step(model, optimizer, batch)
        if run.due():
            run.report(val_loss=evaluate(model))
    return evaluate(model)
