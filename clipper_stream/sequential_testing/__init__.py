"""Which of two versions is better, asked after every feedback: intervals that hold at all times at once.

>>> from clipper_stream.sequential_testing.hedged_capital import Betting
>>> losses = Betting(alpha=0.05)
>>> for _ in range(40):
...     losses = losses.observe(0.0)
>>> losses.lower, losses.upper < 0.2
(0.0, True)
"""
