"""Workers: they claim trials of a study, train them, and record how each ended."""
