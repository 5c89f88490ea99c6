"""One model version for all queries, also one that was not there when they came."""

from dataclasses import dataclass

import numpy as np

from clipper_stream.evaluation.candidates.candidate import Targeted
from clipper_stream.evaluation.log.columns import DecisionColumns


@dataclass(frozen=True, slots=True, kw_only=True)
class OneModel:
    """A candidate that always asks the same model.

    Attributes:
        model: Reference; that of a new model once its losses are a column (`adding.with_column`).

    >>> OneModel(model="svm:2").name
    'model svm:2'

    Source: Bottou et al., "Counterfactual reasoning and learning systems", JMLR 14, 2013, section 4.
    """

    model: str

    @property
    def name(self) -> str:
        return f"model {self.model}"

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def targeted(self, columns: DecisionColumns) -> Targeted:
        wide = columns if self.model in columns.models else columns.of_models([*columns.models, self.model])
        target = np.zeros((len(columns), len(wide.models)))
        target[:, wide.models.index(self.model)] = 1.0
        return Targeted(columns=wide, target=target)
