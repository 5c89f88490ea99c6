"""A run in the form that the sums, intervals and warnings of estimators take."""

from collections.abc import Sequence

from clipper_stream.evaluation.estimators.blocks import blocks_of
from clipper_stream.evaluation.estimators.estimator import Terms
from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.evaluation.sequential.replay_loop import Run


def terms_and_choices(run: Run, columns: DecisionColumns, models: Sequence[str]) -> tuple[Terms, Choices]:
    """The decisions of a run that say something.

    Args:
        run: What a candidate did with these columns.
        columns: The same that it was given.
        models: The candidate's, in its order.

    Returns:
        Terms whose value is the run's loss, and what the candidate would have chosen: for `BlockSums` and `Support`.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
    >>> from clipper_stream.evaluation.estimators.block_sums import BlockSums
    >>> from clipper_stream.evaluation.sequential.exact_simulation import simulate
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
