"""Records that could not be used: read, and sent to where they came from once more."""
