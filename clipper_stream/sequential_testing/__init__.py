"""Which of two versions is better, asked after every feedback: intervals that hold at all times at once.

>>> from clipper_stream.sequential_testing.score_sums import Score, ScoreSums
>>> differences = ScoreSums(margin=0.02)
>>> for second in range(40):
...     differences.add(second, Score(weight=1.0, low=-0.5, high=-0.5))
>>> differences.capital().upper(alpha=0.025) < 0.0
True
"""
