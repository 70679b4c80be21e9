"""A script of plain Optuna, whose study the page takes over."""

import optuna


def objective(trial: optuna.Trial) -> float:
    """Returns a value of three parameters."""
    rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    decay = trial.suggest_float("l2", 1e-6, 1e-2, log=True)
    depth = trial.suggest_int("depth", 1, 4)
    for step in range(3):
        trial.report(rate + decay + 1 / (depth + step), step)
    return rate + decay + depth


study = optuna.create_study(storage="sqlite:///optuna.db", study_name="mnist")
study.optimize(objective, n_trials=6)
