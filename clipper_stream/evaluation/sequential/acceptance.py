"""Which logged decisions become the history of a candidate, as if it had made them.

Of a decision whose asked models A are scored with probabilities q, model m of A is taken with probability
c pi(m) / q(m): over everything random in the log, each m is taken with probability c pi(m), which is the candidate's
own distribution, c times as often. At most one is taken, so c must not exceed 1 / sum of pi(m) / q(m) over A. Where
one model was asked this is rejection sampling, with c the acceptance ratio.

Source: Dudik, Erhan, Langford and Li, "Sample-efficient nonstationary policy evaluation for contextual bandits", UAI
2012, algorithm 1 (there A is one action). Li, Chu, Langford and Wang, "Unbiased offline evaluation of
contextual-bandit-based news article recommendation algorithms", WSDM 2011, algorithm 2 (q uniform, c = 1 / K).
"""

from collections.abc import Sequence

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.sequential.candidate_state import CandidateState, ReplayChoice, replay_rng
from clipper_stream.evaluation.sequential.replay_loop import ReplayedQuery


def importance(target: Sequence[float], weights: Sequence[float]) -> float:
    """Sum of pi(m) / q(m) over the models that were scored."""
    return sum(share * weight for share, weight in zip(target, weights, strict=True))


def taken(
    target: Sequence[float], weights: Sequence[float], ratio: float, query: ReplayedQuery, seed: int
) -> int | None:
    """Which model's loss becomes history; None: that of none.

    Args:
        target: Probability with which the candidate serves each model; pi.
        weights: 1 / probability of having been scored, 0 where it was not; 1 / q.
        ratio: The acceptance ratio; c, in (0, 1].
        query: Whose random number decides.
        seed: Of the random numbers.

    Source: as this file.
    """
    left = replay_rng(seed, query.place[1], query.query_offset).random()
    for number, (share, weight) in enumerate(zip(target, weights, strict=True)):
        left -= ratio * share * weight
        if left < 0.0:
            return number
    return None


def learn(learner: CandidateState, target: Sequence[float], number: int, loss: float, query: ReplayedQuery) -> None:
    """The candidate will see this loss of this model, as of its own choice, when the feedback came."""
    model = learner.models[number]
    share = min(1.0, target[number])
    learner.expect(
        query.feedback_at_ms, query.place, query.feedback_offset, {model: loss}, {model: share}, query.features
    )


def check_alone(learner: CandidateState, standing: ReplayChoice) -> None:
    """Refuse a policy that serves several models together.

    Raises:
        InvalidSetting: its loss is no loss of one model.
    """
    if standing.together:
        raise InvalidSetting(
            f"policy {learner.policy.name!r} serves {len(standing.together)} models together while it learns: simulate "
            "it where all outputs were logged, or evaluate it frozen"
        )
