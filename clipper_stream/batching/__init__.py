"""How many rows go to a model together (a limit), and when (a window)."""
