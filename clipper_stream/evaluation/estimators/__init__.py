"""Estimating: the loss that a candidate would have had on logged decisions, with an interval and what to be wary of.

    DecisionColumns, target --> [choices] --> [an estimator] --> Terms --> [sums] --> value --> [bootstrap, bernstein]
          |                        ^  ^
          +--> [outcome] predicted-+  +-- weights of [censoring] <-- [delays]
          +--> [support] what the log cannot say about the candidate

Everything is a sum over decisions, so chunks of a log are estimated one by one and their sums merged.
"""
