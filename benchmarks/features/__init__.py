"""What each library can do, found out by trying: ``python -m benchmarks.features`` prints a table."""
