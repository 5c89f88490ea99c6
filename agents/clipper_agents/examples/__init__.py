"""Things to try the system with."""
