"""One answer from the outputs of several models, and how far they agree with it.

>>> from clipper_stream.combining.combiner import combine
>>> combine("vote", {"svm:1": "cat", "knn:1": "dog"}, {"svm:1": 0.9, "knn:1": 0.1}, asked=2)
Combined(output='cat', confidence=0.5)
"""
