"""Text: what comes next, byte by byte or token by token."""
