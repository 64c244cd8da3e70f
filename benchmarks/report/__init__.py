"""RESULTS.md and its picture, from the files that training runs leave."""
