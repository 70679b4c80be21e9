"""Cohorts: many trials trained in one loop, each a lane, where their steps fuse."""
