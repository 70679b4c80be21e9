"""Trials that several processes train together: their worker's half, and their own."""
