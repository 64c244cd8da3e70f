"""The chapter's training in PyTorch and ours, from the same weights on the same images."""
