"""The rollout controller: compares versions by their feedback, and makes the changes that an operator allowed.

control ------> comparison_spec: which trials and candidates are compared, since which revision
                      |
predictions --+       v
audits -------+-> log_tailer -> query_buffer -> query_losses -> trial_evidence -> decisions
feedback -----+   (one order)                        +--------> drift_monitor

All but reading and changing is a pure fold of the logs: a restart reads them again and comes to the same. On the wire,
in commands, settings and metrics the process is called `steward`.
"""
