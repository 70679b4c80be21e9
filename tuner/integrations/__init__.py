"""Trainers that own the loop: Lightning's, Transformers'."""
