"""Runs of studies: their opening, workers that train trials, pools of workers, the dashboard."""
