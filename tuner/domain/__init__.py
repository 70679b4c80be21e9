"""What a study is made of, in plain validated objects: no torch, no Optuna, no SQL."""
