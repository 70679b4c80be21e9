"""A script of plain Optuna, whose studies the page takes over: one names its optimizers."""

import optuna


def objective(trial: optuna.Trial) -> float:
    """Returns a value of three parameters."""
    rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    decay = trial.suggest_float("l2", 1e-6, 1e-2, log=True)
    if trial.study.study_name == "mnist":
        trial.suggest_categorical("optimizer", ["SGD", "AdamW"])
    depth = trial.suggest_int("depth", 1, 4)
    for step in range(3):
        trial.report(rate + decay + 1 / (depth + step), step)
    return rate + decay + depth


for name in ("mnist", "letters"):
    study = optuna.create_study(storage="sqlite:///optuna.db", study_name=name)
    study.optimize(objective, n_trials=6)
