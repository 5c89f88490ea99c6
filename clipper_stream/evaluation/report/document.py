"""The parts of an HTML page that needs nothing but itself: no script, no network, everything escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from string import Template

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #222; background: #f6f6f4; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 0 0 .4rem; }
p { max-width: 46rem; margin: .4rem 0 1rem; } .lead { font-size: 1.08rem; color: #444; }
section { background: #fff; border: 1px solid #e4e4e0; border-radius: 10px; padding: 1.4rem 1.6rem; margin: 1.2rem 0; }
figure { margin: 0; } figure svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: right; padding: .35rem .7rem; border-bottom: 1px solid #ececea; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } thead th { color: #666; font-weight: 600; }
td small { color: #777; } tr.policy td:first-child { font-weight: 700; }
td.text { text-align: left; white-space: normal; }
.wide { overflow-x: auto; } code { background: #f1f1ee; padding: .1rem .35rem; border-radius: 4px; }
.better { color: #1a7f4b; font-weight: 600; } .worse { color: #b3261e; font-weight: 600; }
footer { color: #777; font-size: .85rem; }
"""
DOCUMENT = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>$style</style></head><body><main>
<h1>$title</h1>
<p class="lead">$lead</p>
$sections
</main></body></html>
""")


def document(title: str, lead: str, sections: Iterable[str], footer: str = "") -> str:
    """Return a whole HTML page.

    Args:
        title: Title and heading, plain text.
        lead: The result in a sentence or two, plain text.
        sections: From `section`.
        footer: Plain text.
    """
    parts = [*sections, f"<footer>{escape(footer)}</footer>" if footer else ""]
    return DOCUMENT.substitute(style=STYLE, title=escape(title), lead=escape(lead), sections="\n".join(parts))


def section(title: str, *parts: str) -> str:
    """A section; the title is plain text, the parts are elements."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def captioned(caption: str, figure: str) -> str:
    """A section with a figure; the first line of the caption is its title, the others are its text."""
    title, _, text = caption.partition("\n")
    return section(title, paragraph(text), f"<figure>{figure}</figure>")


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; `kind` is a class of the style sheet."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def bullets(lines: Iterable[str]) -> str:
    """A list of plain lines; nothing for none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """A table of `row`s that scrolls where it is too wide; the titles of its columns are plain text."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def row(cells: Iterable[str], kind: str = "") -> str:
    """A table row of `cell`s; the kind `policy` stands out."""
    return f"<tr{_class(kind)}>{''.join(cells)}</tr>"


def cell(text: str, note: str = "", kind: str = "") -> str:
    """A cell with a small note below its text, both plain.

    >>> cell("3 < 4", kind="text"), cell("0.1", "0.0 to 0.2")
    ('<td class="text">3 &lt; 4</td>', '<td>0.1<br><small>0.0 to 0.2</small></td>')
    """
    below = f"<br><small>{escape(note)}</small>" if note else ""
    return f"<td{_class(kind)}>{escape(text)}{below}</td>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
