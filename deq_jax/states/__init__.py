"""What a state is, what belongs to its samples, and which devices hold them."""
