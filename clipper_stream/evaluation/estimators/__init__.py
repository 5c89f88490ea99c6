"""Estimating: the loss that a candidate would have had on logged decisions, with an interval and what to be wary of.

    DecisionColumns, target --> [choices] --> [an estimator] --> [block sums] --> [bootstrap] --> Estimate
          |                        ^  ^
          +--> [outcome] predicted-+
          +--> [support] what the log cannot say about the candidate

Everything is a sum over decisions, so chunks of a log are estimated one by one and their sums merged. The chunks have
the models and contexts of the whole log, so that sums of one chunk can be added to those of another.
"""
