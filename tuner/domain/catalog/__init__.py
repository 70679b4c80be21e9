"""The optimizers, schedules and averages that can be searched: one row each, with its ranges."""
