"""What a run leaves on disk: its folder, checkpoints, metrics, environment and curves."""
