"""The parts of a study as plain validated objects, without torch, Optuna or SQL."""
