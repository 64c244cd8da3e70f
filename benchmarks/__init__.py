"""Side by side with peers: programs that print a table, and write JSON and a picture."""
