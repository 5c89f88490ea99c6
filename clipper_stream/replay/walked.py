"""A run in the form that the sums, intervals and warnings of estimators take."""

from collections.abc import Sequence

from clipper_stream.replay.columns import DecisionColumns
from clipper_stream.replay.estimating.blocks import blocks_of
from clipper_stream.replay.estimating.choices import Choices
from clipper_stream.replay.estimating.estimator import Terms
from clipper_stream.replay.scored import known_losses
from clipper_stream.replay.walking import Run


def terms_and_choices(run: Run, columns: DecisionColumns, models: Sequence[str]) -> tuple[Terms, Choices]:
    """The decisions of a run that say something.

    Args:
        run: What a candidate did with these columns.
        columns: The same that it was given.
        models: The candidate's, in its order.

    Returns:
        Terms whose value is the run's loss, and what the candidate would have chosen: for `BlockSums` and `Support`.

    >>> from clipper_stream.replay.arrays import logged
    >>> from clipper_stream.replay.candidates.parsing import parse_candidate
    >>> from clipper_stream.replay.estimating.sums import BlockSums
    >>> from clipper_stream.replay.simulating import simulate
    >>> columns = logged([[1.0, 1.0]] * 2, [[0.0, 1.0]] * 2)
    >>> run = next(simulate([columns], parse_candidate("exp3", columns.models)))
    >>> BlockSums.of(*terms_and_choices(run, columns, columns.models)).value
    0.5
    """
    rows = run.denominator > 0.0
    known = known_losses(columns.of_models(models))
    terms = Terms(numerator=run.numerator[rows], denominator=run.denominator[rows])
    choices = Choices(
        weight=known.weight[rows],
        loss=known.loss[rows],
        target=run.target[rows],
        predicted=None,
        answer_loss=columns.answer_loss[rows],
        share=None,
        block=blocks_of(columns)[rows],
    )
    return terms, choices
