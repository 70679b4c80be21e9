"""Searches of libraries outside Optuna, over the replay of `benchmarks.search`."""
