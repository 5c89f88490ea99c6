"""Has a model's loss changed? A detector reads its losses one by one, and says when."""
