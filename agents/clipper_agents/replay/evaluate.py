"""A file of decisions, answers of new models and texts of candidates: what an evaluation is asked of.

Rules of this file:
- The log is read in the order of time, because candidates learn on the way; new models are columns of it.
- What the application would do (its candidates, its trials, how it combines) is what its configuration said at the time
  of each decision, which stands in the file.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clipper_agents.control.selection_states import read_state, state_of
from clipper_agents.replay.answer_files import read_answers
from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
from clipper_stream.evaluation.evaluate import evaluate
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.new_model import PlacedAnswers, with_new_model
from clipper_stream.evaluation.log.parquet import FileFacts, read_chunks, read_facts
from clipper_stream.evaluation.question import Question
from clipper_stream.evaluation.results import Evaluation
from clipper_stream.evaluation.sequential.replay import Place
from clipper_stream.selection.state import SelectionState
from clipper_topics.selection_rows import unsaved


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """A log that can be read again and again.

    Attributes:
        path: Of the file.
        facts: Metadata of the file.
        new: Answers of models that the log has no outputs of, by reference.
    """

    path: Path
    facts: FileFacts
    new: Mapping[str, PlacedAnswers] = field(default_factory=dict)

    @classmethod
    def opened(cls, path: Path, answers: Sequence[Path] = ()) -> "LogFile":
        """Open a log file together with files of answers of new models.

        Raises:
            UnusableFile: the file holds no decisions.
            InvalidSetting: a file holds no answers, or those of a model that the log has already.
        """
        facts = read_facts(path)
        new: dict[str, PlacedAnswers] = {}
        for one in answers:
            ref, placed = read_answers(one)
            if ref in facts.models or ref in new:
                raise InvalidSetting(f"{one} holds answers of {ref}, which is there already: score it by another name")
            new[ref] = placed
        return cls(path=path, facts=facts, new=new)

    def chunks(self) -> Iterator[DecisionColumns]:
        """Read the decisions in the order of time, with a column for each new model."""
        for columns in read_chunks(self.path):
            wider = columns
            for ref, placed in self.new.items():
                wider = with_new_model(wider, ref, placed, self.facts.loss_kind)
            yield wider


def evaluate_file(log: LogFile, candidates: Sequence[str], question: Question, state: Path | None = None) -> Evaluation:
    """Estimate what candidates would have lost on the decisions of a file.

    Args:
        log: The decisions.
        candidates: As texts; see `candidates.candidate_text`.
        question: Estimators, intervals and warnings to use; the loss is that of the file.
        state: A file of `selection export`: what candidates have learned when the log begins; None: nothing.

    Raises:
        InvalidSetting: a candidate cannot be read, or the log has no feedback.
        UnusableState: the file of the state cannot be read.
    """
    facts = log.facts
    configs = [facts.configs[revision] for revision in sorted(facts.configs, reverse=True)]
    models = tuple(dict.fromkeys(model for config in configs for model in config.models)) or facts.models
    states = {} if state is None else states_of(state, facts.application)
    known = (*facts.models, *log.new)
    parsed = [parse_candidate(text, models, states=states, known=known) for text in candidates]
    return evaluate(facts.application, log.chunks, parsed, replace(question, loss=facts.loss_kind))


def states_of(file: Path, application: str) -> dict[Place, SelectionState]:
    """Read the totals of a file of `selection export`, by context and partition; errors as of `read_state`."""
    return {(row.context, row.partition): state_of(unsaved(row)) for row in read_state(file, application).rows}
