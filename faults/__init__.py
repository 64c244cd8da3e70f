"""What can go wrong with a run, made to go wrong: `make faults`, or python -m faults [--seed N] [--faults N]."""
