"""Workers and all around them: resuming studies, training trials, pools, the dashboard."""
