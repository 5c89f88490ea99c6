"""Outputs of (model version, input) that need not be computed again (Clipper, section 4.2)."""
