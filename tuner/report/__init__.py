"""Reports of a study, for people and programs, and its answer as code."""
