"""What learning curves that others published say about tuner's rule of pausing trials."""
