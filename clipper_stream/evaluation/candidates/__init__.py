"""Candidates: what could have decided instead, from texts such as `exp3:eta=0.2` and `ensemble svm:1+knn:1`.

>>> from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
>>> parse_candidate("exp3:eta=0.2", ["svm:1", "knn:1"]).policy
Exp3(eta=0.2, exploration=0.05, half_life=None, half_life_s=None)
"""
