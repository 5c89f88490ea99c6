"""Thompson sampling: ask each model as often as it is probable that it is the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.selection.discount import check_half_life, discount_factor
from clipper_stream.selection.distribution import ActionDistribution, one_of
from clipper_stream.selection.parameter_checks import check_number
from clipper_stream.selection.policies.best_arm_probability import best_arm_probabilities
from clipper_stream.selection.policies.epsilon_greedy import average_loss
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState, add_losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Thompson(SelectionPolicy):
    """The probability that a model's mean loss is the least, by Beta posteriors, and a uniform share for all.

    Usually a loss is drawn from each posterior and the least one asked, and the probability of that is not known. Here
    it is integrated (see `best_arm_probabilities`) and then drawn from: the same choice, with an exact propensity, so
    that replay and learners by weight can use the log. The posterior of a model is Beta(a + loss, b + count - loss).
    Losses between 0 and 1 count as parts of an error, whose spread is never less than theirs.

    The prior is worth two feedbacks: Jeffreys' halves, and one at the average of the candidates' means, so that a model
    that joins is about as good as the others and little is known of it. Late feedback is no trouble: the choice
    stays random while nothing is heard.

    Attributes:
        exploration: Share of queries spread evenly over all candidates, in [0, 1]. Without it a model that is clearly
            worse is not asked any more, and replay cannot evaluate policies that would ask it.
        half_life: Feedbacks of one partition after which an observation weighs half, > 0 (discounted Thompson
            sampling); None: never forget.

    >>> from clipper_stream.selection.state import ModelTotals
    >>> state = SelectionState({"a:1": ModelTotals(50.0, 5.0, 50.0, 5.0), "b:1": ModelTotals(50.0, 9.0, 50.0, 9.0)})
    >>> {model: round(weight, 3) for model, weight in Thompson().weights(state, ["a:1", "b:1"]).items()}
    {'a:1': 0.873, 'b:1': 0.127}

    Source: Thompson, "On the likelihood that one unknown probability exceeds another", Biometrika 25, 1933; Kaufmann,
    Korda and Munos, "Thompson sampling: an asymptotically optimal finite-time analysis", ALT 2012; Raj and Kalyani,
    "Taming non-stationary bandits: a Bayesian approach", 2017 (the discount).
    """

    name: ClassVar[str] = "thompson"
    exploration: float = 0.0
    half_life: float | None = None

    def __post_init__(self) -> None:
        check_number("exploration", self.exploration, most=1.0)
        check_half_life(self.half_life)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        best = best_arm_probabilities(*posteriors(state, candidates)) if len(candidates) > 1 else [1.0]
        floor = self.exploration / len(candidates)
        shares = {m: (1.0 - self.exploration) * p + floor for m, p in zip(candidates, best, strict=True)}
        return one_of(shares, shares.values())

    def observe(
        self, state: SelectionState, losses: Mapping[str, float], propensities: Mapping[str, float]
    ) -> SelectionState:
        return add_losses(state, losses, propensities, discount_factor(self.half_life))


def posteriors(state: SelectionState, candidates: Sequence[str]) -> tuple[list[float], list[float]]:
    """Both parameters of each candidate's Beta posterior, of its losses and of what they leave to 1."""
    average = average_loss(state, candidates, unknown=0.5)
    totals = [state.of(model) for model in candidates]
    alphas = [0.5 + average + one.loss for one in totals]
    return alphas, [1.5 - average + max(0.0, one.count - one.loss) for one in totals]
