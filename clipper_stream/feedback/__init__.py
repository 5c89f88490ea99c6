"""What was true, as a loss in [0, 1], and the learning step as one pure function.

>>> from clipper_stream.feedback.update import loss_of
>>> loss_of("zero_one", 3, "3"), loss_of("absolute", 0.75, 0.5)
(0.0, 0.25)
"""
