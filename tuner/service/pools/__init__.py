"""Pools: they start workers as local processes or on Ray, and replace those that die."""
