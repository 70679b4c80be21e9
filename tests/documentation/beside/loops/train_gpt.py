"""A script that trains as it is imported."""

from mine import build_loader, build_model, evaluate, train_step

model, loader = build_model(), build_loader()
optimizer = run.optimizer(model)  # noqa: F821 (a global variable that tuner's loop gives)
for _ in range(1):
    for batch in loader:
        train_step(model, optimizer, batch)
val_loss = evaluate(model)
