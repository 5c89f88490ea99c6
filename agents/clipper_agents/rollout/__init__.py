"""The steward: compares versions by what the logs say of them, and makes the changes that an operator allowed.

control ------> [watched]: which trials and candidates, since which revision
predictions --+                                                          |
audits -------+-> [reading] -> one order -> [joining] -> [scoring] -> [standings] -> a decision -> [changes]
feedback -----+

All but reading and changing is a pure fold of the logs: a restart reads them again and comes to the same.
"""

from clipper_agents.rollout.read_comparisons import Comparison, read_comparisons

__all__ = ["Comparison", "read_comparisons"]
