"""An evaluation as a table for a terminal."""

from rich.console import Console
from rich.text import Text

from clipper_agents.cli.terminal import TextTable
from clipper_stream.evaluation.report.page import SIGNED, interval, lead, number
from clipper_stream.evaluation.results import CandidateResult, Evaluation

COLOURS = {"better": "green", "worse": "red"}


def show_evaluation(console: Console, evaluation: Evaluation) -> None:
    """The result in a sentence, a line a candidate, and what to be careful of."""
    console.print(Text(lead(evaluation)))
    console.print()
    console.print(_table(evaluation))
    warnings = [(one.name, text) for one in evaluation.candidates for text in one.warnings]
    for name, text in warnings:
        console.print(Text(f"! {name}: {text}", "yellow"))
    for note in evaluation.notes:
        console.print(Text(f"- {note}", "dim"))


def _table(evaluation: Evaluation) -> TextTable:
    sure = f"{evaluation.confidence:.0%} interval"
    measure = evaluation.measure
    headings = ("candidate", measure, sure, "by", "difference", "interval", "verdict", "carried by")
    rows = [_cells(evaluation.logged, logged=True), *(_cells(one, logged=False) for one in evaluation.candidates)]
    return TextTable(headings, rows, {measure, "difference", "carried by"})


def _cells(one: CandidateResult, *, logged: bool) -> list[Text]:
    name = f"{one.name} (logged)" if logged else one.name
    cells = [
        Text(name, "bold" if logged else ""),
        Text(number(one.loss.value)),
        Text(interval(one.loss)),
        Text(one.made_by),
    ]
    if logged:
        return cells
    verdict = Text(one.verdict, COLOURS.get(one.verdict, ""))
    count = number(one.standing.carrying, ",.0f", "")
    return [*cells, Text(number(one.difference.value, SIGNED)), Text(interval(one.difference)), verdict, Text(count)]
