"""Several models for all queries, with weights that stay."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.candidates.candidate import Targeted
from clipper_stream.evaluation.candidates.one_model import OneModel
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.ensembles import Answering, with_ensemble
from clipper_stream.selection.parameters import check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """A fixed set of models whose outputs are combined.

    Attributes:
        weights: Trust in each member, >= 0, not all 0, at least two.
        answering: How they are combined, and when the default output is given.
        trials: Versions in the log that no policy chose.

    >>> Ensemble(weights={"svm:1": 1.0, "knn:1": 1.0}).name
    'ensemble svm:1+knn:1'

    Raises:
        InvalidSetting: fewer than two members, or a weight out of its bounds.

    Source: Crankshaw et al., "Clipper", NSDI 2017, section 5.2.
    """

    weights: Mapping[str, float]
    answering: Answering = field(default_factory=Answering)
    trials: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for model, weight in self.weights.items():
            check_number(f"weight of {model}", weight)
        if len(self.weights) < 2 or not any(self.weights.values()):  # noqa: PLR2004 (one is no ensemble)
            raise InvalidSetting(
                f"an ensemble of {list(self.weights)}: give at least two models, and one a weight above 0"
            )

    @property
    def name(self) -> str:
        alike = len(set(self.weights.values())) == 1
        members = (model if alike else f"{model}={weight:g}" for model, weight in self.weights.items())
        changed = [
            f"{option}={getattr(self.answering, attribute)}"
            for option, attribute in (("combiner", "combiner"), ("threshold", "confidence_threshold"))
            if getattr(self.answering, attribute) != getattr(Answering(), attribute)
        ]
        return ",".join([f"ensemble {'+'.join(members)}", *changed])

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def targeted(self, columns: DecisionColumns) -> Targeted:
        wider = with_ensemble(columns, self.name, self.models, self.weights, self.answering, self.trials)
        return OneModel(model=self.name).targeted(wider)
