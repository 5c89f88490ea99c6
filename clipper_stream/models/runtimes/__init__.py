"""Model runtimes, one module a format of models, and what they share."""
