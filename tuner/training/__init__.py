"""Training one trial: the workload's contract, the loop, seeds, checkpoints. No Optuna, no SQL."""
