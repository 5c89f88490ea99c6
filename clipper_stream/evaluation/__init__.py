"""Replay: what another policy, another ensemble or another model would have done with the logged queries."""
