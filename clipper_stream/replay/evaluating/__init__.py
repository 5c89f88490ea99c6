"""Evaluating: a log and candidates in, an `Evaluation` out.

    log --> [survey] what it holds: models, times, contexts, delays, predicted losses
     |         |
     +---------+--> [settled]  candidates that stay as they are: every estimator, chunk by chunk
     |         +--> [learning] candidates that learn on the way: simulated, or by rejection and DR, in the order of time
     |         +--> [logged]   what really decided
     |                  |
     +--> [spans]       +--> [conclusion] intervals, differences, which estimate to read, warnings --> Evaluation

A log is gone through several times, and never held in memory.
"""

from clipper_stream.replay.evaluating.evaluate import evaluate
from clipper_stream.replay.evaluating.question import Question

__all__ = ["Question", "evaluate"]
