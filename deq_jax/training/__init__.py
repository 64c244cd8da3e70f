"""Training: settings, data, steps, checkpoints, logs, and the loop that ties them together."""
