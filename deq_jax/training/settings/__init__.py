"""What a user may set, and what may not be."""
