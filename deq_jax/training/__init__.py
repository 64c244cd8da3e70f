"""A run of any task: the loop, and what it sets, computes, leaves on disk and says."""
