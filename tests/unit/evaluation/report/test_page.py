import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest
from builders.evaluation import candidate, contexts, evaluation

from clipper_stream.evaluation.report import render_page, write_page
from clipper_stream.evaluation.report.page import CAPTIONS, lead
from clipper_stream.evaluation.results import NOTHING, EvidenceSize, Series

WHOLE = evaluation(
    candidate("exp3:eta=0.2", 0.08, contexts=contexts()),
    candidate("svm:2", 0.11, kind="model", warnings=("3 % of its choices have no support: raise audit_ratio.",)),
)
whole_page = cache(lambda: render_page(WHOLE))


class Elements(HTMLParser):
    """Names of elements, and addresses that a browser would fetch."""

    def __init__(self, page: str):
        super().__init__()
        self.names, self.fetched, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.fetched += [v for n, v in attrs if n in {"src", "href", "data"} and v and not v.startswith("#")]
        if tag not in {"meta", "br", "img", "path", "use", "rect", "image", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_fetches_nothing_and_runs_nothing():
    found = Elements(whole_page())
    assert not found.fetched
    assert not found.open
    assert "script" not in found.names
    assert not re.search(r"url\((?!#)|@import|https?://", whole_page())


def test_every_figure_has_its_caption_and_warnings_and_notes_are_shown():
    assert whole_page().count("<svg") == len(CAPTIONS)
    captions = [caption.partition("\n")[0] for caption in CAPTIONS.values()]
    for said in (*captions, "svm:2: 3 % of its choices have no support", "1,000 decisions have no feedback yet."):
        assert said in whole_page()


def test_what_is_better_stands_in_the_first_sentence_and_a_doubtful_difference_is_not_called_better():
    assert "exp3:eta=0.2 would have lost 0.0800: better by 0.0120 to 0.0280, with 95% confidence" in lead(WHOLE)
    same = evaluation(candidate("a:1", 0.095))
    assert lead(same).endswith("No candidate can be told to be better.")
    assert "not told apart" in render_page(same)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "$^$ costs $x_$"])
def test_names_are_shown_and_not_obeyed(name):
    named = [replace(one, context=name) for one in contexts()[:1]]
    page = render_page(evaluation(candidate(name, 0.08, contexts=named)))
    assert "script" not in Elements(page).names
    assert page.count(name.replace("<", "&lt;").replace(">", "&gt;")) > 3


@pytest.mark.parametrize(
    "strange",
    [
        evaluation(),
        evaluation(candidate("a:1", 0.2, estimates={"dr": NOTHING}, difference=NOTHING, standing=EvidenceSize())),
        evaluation(candidate("a:1", 0.2, series=Series())),
        evaluation(*(candidate(f"exp3:eta={n}", 0.2) for n in range(12))),
    ],
    ids=["no candidate", "nothing known", "no series", "many candidates"],
)
def test_pages_of_little_and_of_much_are_whole(strange, tmp_path):
    page = write_page(tmp_path / "page.html", strange).read_text()
    assert not Elements(page).open
    assert page.rstrip().endswith("</html>")
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_the_same_evaluation_gives_the_same_bytes():
    assert render_page(WHOLE) == whole_page()
