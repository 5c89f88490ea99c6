"""The answers to the applications, query by query, with the output of each model."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from clipper_agents.demo.fault import FaultSwitch
from clipper_loadgen.answers import AnswerStatus
from clipper_loadgen.run import LoadRun
from clipper_topics.codec import Codec

UNANSWERED = -1
DIGITS = range(10)
DigitArray: TypeAlias = npt.NDArray[np.int8]


class ModelDigit(msgspec.Struct):
    """One model's output in a prediction."""

    model: str
    version: str
    output: Any = None


class DigitAnswer(AnswerStatus):
    """A prediction with its output and those of the models."""

    output: Any = None
    models: list[ModelDigit] = msgspec.field(default_factory=list)


class AnswerLog:
    """Records every answer of a run, and lets the fault happen at its query: an observer of the load.

    Args:
        models: References of the models, `name:version`.
        queries: Number of queries.
        fault: Told about every query before it is sent.

    Attributes:
        models: References of the models, in the order of the rows of `model_digits`.
        digits: The digit of each answer, -1 where there is none.
        model_digits: The output of each model, a row a model, -1 where it was not asked or did not answer in time.
    """

    answers = Codec(DigitAnswer)

    def __init__(self, models: Sequence[str], queries: int, fault: FaultSwitch) -> None:
        self._run: LoadRun | None = None
        self.models = tuple(models)
        self.digits: DigitArray = np.full(queries, UNANSWERED, np.int8)
        self.model_digits: DigitArray = np.full((len(models), queries), UNANSWERED, np.int8)
        self._fault, self._begun = fault, asyncio.Event()
        self._row_of = {ref: row for row, ref in enumerate(models)}

    def begun(self, run: LoadRun) -> None:
        self._run = run
        self._begun.set()

    async def wait_begun(self) -> LoadRun:
        """The run, as soon as it has begun."""
        await self._begun.wait()
        assert self._run is not None
        return self._run

    def releasing(self, count: int) -> None:
        self._fault.before_query(count - 1)

    def answered(self, query: int, answer: DigitAnswer) -> None:
        self.digits[query] = _digit(answer.output)
        for one in answer.models:
            row = self._row_of.get(f"{one.model}:{one.version}")
            if row is not None:
                self.model_digits[row, query] = _digit(one.output)


def _digit(output: Any) -> int:
    return int(output) if isinstance(output, int | float) and output in DIGITS else UNANSWERED
