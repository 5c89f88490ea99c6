"""One answer from the outputs of several models, and how far they agree with it."""
