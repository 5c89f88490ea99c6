"""Tables of HTML pages that narrow screens show as lists: each cell says the heading of its column."""

import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import chain, repeat


def labelled(rows: str, headings: Sequence[str]) -> str:
    """Return rows, as HTML, whose cells have an attribute `data-label`, which style sheets show beside the cell.

    >>> labelled("<tr><th>svm:1</th><td>0.1</td></tr>", ("version", "loss"))
    '<tr><th data-label="version">svm:1</th><td data-label="loss">0.1</td></tr>'
    """
    return "<tr".join(_labelled_row(row, chain(headings, repeat(""))) for row in rows.split("<tr"))


def _labelled_row(row: str, names: Iterator[str]) -> str:
    return re.sub("<t[dh](?=[ >])", lambda cell: f'{cell[0]} data-label="{escape(next(names))}"', row)
