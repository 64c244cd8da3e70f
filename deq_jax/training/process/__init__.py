"""The process that a run lives in: its command line, terminal, signals and device."""
