"""What a step computes: the update, its optimiser and phases, the evaluation."""
