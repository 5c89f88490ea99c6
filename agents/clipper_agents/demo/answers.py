"""What came back, query by query: the answer, and what each model had said."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from clipper_loadgen.ledger import Ledger
from clipper_loadgen.script import Script
from clipper_stream.errors import InvalidSetting

NOTHING = -1
UNSTATED = "unstated"
DigitArray: TypeAlias = npt.NDArray[np.int8]


class SaidBy(msgspec.Struct):
    """One model's output in a prediction."""

    model: str
    version: str
    output: Any = None


class Answer(msgspec.Struct):
    """The fields of a prediction that are looked at; the others are skipped, not decoded."""

    query_id: str
    output: Any = None
    default: bool = False
    reason: str | None = None
    models: list[SaidBy] = []


_decoder = msgspec.json.Decoder(Answer)


def decode_answers(values: Iterable[bytes | None]) -> list[Answer]:
    """The answers in records of the predictions topic; what is none is left out."""
    answers = []
    for value in values:
        try:
            answers.append(_decoder.decode(value or b""))
        except msgspec.MsgspecError:
            continue
    return answers


class Answers:
    """Every answer to the run's queries, by the query's index.

    Args:
        script: The queries.
        models: References of the models, `name:version`.

    Attributes:
        ledger: When each query was sent and answered.
        outputs: The digit of each answer, -1 where there is none.
        said: The digit that each model said, a row a model, -1 where it was not asked or not heard.
        models: References of the models, in the order of the rows of `said`.
    """

    def __init__(self, script: Script, models: Sequence[str]) -> None:
        self._script = script
        self.ledger = Ledger([math.nan] * len(script))  # latencies count from when a query was sent
        self.models = tuple(models)
        self.outputs: DigitArray = np.full(len(script), NOTHING, np.int8)
        self.said: DigitArray = np.full((len(models), len(script)), NOTHING, np.int8)
        self._row_of = {ref: row for row, ref in enumerate(models)}

    def take(self, answer: Answer, now_s: float) -> int | None:
        """Enter an answer; the query that it is the first answer to, None for another one."""
        query = self._script.query_of(answer.query_id)
        if query is None:
            return None
        reason = (answer.reason or UNSTATED) if answer.default else None
        if not self.ledger.answered(query, now_s, reason=reason):
            return None
        self.outputs[query] = _digit(answer.output)
        for said in answer.models:
            row = self._row_of.get(f"{said.model}:{said.version}")
            if row is not None:
                self.said[row, query] = _digit(said.output)
        return query

    def row_of(self, ref: str) -> int:
        """The row of a model.

        Raises:
            InvalidSetting: no such model.
        """
        if ref not in self._row_of:
            raise InvalidSetting(f"model {ref!r}: the run has {', '.join(self.models)}")
        return self._row_of[ref]


def _digit(output: Any) -> int:
    return int(output) if isinstance(output, int | float) and 0 <= output <= 9 else NOTHING  # noqa: PLR2004 - digits
