"""What a training step gives a GPU to do: kernels and bytes of its loops, counted without one."""
