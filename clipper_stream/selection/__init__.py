"""Which models to ask: policies that learn from losses, and the additive state that they share.

>>> from clipper_stream.selection.registry import make_policy
>>> from clipper_stream.selection.rng import query_rng
>>> from clipper_stream.selection.state import SelectionState
>>> policy = make_policy("exp3", {"eta": 0.1})
>>> decision = policy.select(SelectionState(), ["svm:1", "knn:1"], query_rng(7, "3-41"))
>>> decision.propensities
(0.5,)
"""
