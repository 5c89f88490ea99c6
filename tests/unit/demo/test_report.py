import io
import queue
import re
import webbrowser
from html.parser import HTMLParser

import pytest
from builders.demo import PLAN, fabricate, sample
from rich.console import Console

from clipper_agents.demo.view import DemoView

pytest.importorskip("matplotlib")

from clipper_agents.demo.figures import draw_figures
from clipper_agents.demo.report import CAPTIONS, print_summary, render_report, write_json, write_report

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def run():
    return fabricate()


@pytest.fixture(scope="module")
def figures(run):
    return draw_figures(run.recorder)


class Balance(HTMLParser):
    """Whether every element that begins also ends."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_there_is_a_figure_for_each_caption(figures):
    assert set(figures) == set(CAPTIONS)
    assert all(png.startswith(PNG) and len(png) > 10_000 for png in figures.values())


def test_the_report_needs_nothing_but_itself(run, figures):
    page = render_report(run.result, run.recorder, figures, failed=[])
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page


def test_the_report_is_well_formed_and_says_what_happened(run, figures):
    page = render_report(run.result, run.recorder, figures, failed=[])
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert "good:1, began to answer wrong digits" in page
    assert "Every query was answered exactly once" in page


def test_the_report_says_what_failed_and_escapes_it(run, figures):
    page = render_report(run.result, run.recorder, figures, failed=["answers: 1 < 2"])
    assert "answers: 1 &lt; 2" in page
    assert "Every query was answered exactly once" not in page


def test_a_run_without_any_answer_can_still_be_reported(tmp_path):
    empty = fabricate(skipped=frozenset(range(PLAN.queries)))
    assert write_report(empty.result, empty.recorder, ["answers"], tmp_path).exists()


def test_a_folder_holds_the_page_the_figures_and_the_result(run, tmp_path):
    page = write_report(run.result, run.recorder, [], tmp_path)
    assert page == tmp_path / "report.html"
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "result.json", *(f"{n}.png" for n in CAPTIONS)}
    write_json(run.result, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "result.json").read_bytes()


# --- in a terminal -----------------------------------------------------------------------------------------------
def recorded() -> Console:
    return Console(record=True, width=140, force_terminal=False, file=io.StringIO())


def test_the_summary_has_every_error_and_what_failed(run):
    console = recorded()
    print_summary(console, run.result, ["offsets: not committed"])
    text = console.export_text()
    assert "exp3" in text
    assert "good:1 broke" in text
    assert "100.0 (92.9-100.0)" in text
    assert "FAILED offsets: not committed" in text


def test_a_line_says_how_far_the_run_is_every_few_seconds():
    console = recorded()
    view = DemoView(console, PLAN)
    view.stage("starting")
    view.sample(sample(1.0, 300, {"applied": 90.0}))
    view.sample(sample(1.1, 301, {}))
    lines = console.export_text().splitlines()
    assert [line for line in lines if line.startswith("30")] == lines[1:]
    assert "300/400 restored exp3=fair:75%" in lines[1]
    assert "cached=7% defaults=0 learned=90/300" in lines[1]


@pytest.mark.parametrize("opens", [True, False], ids=["opened", "not opened"])
def test_the_address_of_the_console_is_a_line_and_opened_if_asked_for(monkeypatch, opens):
    opened = queue.Queue()
    monkeypatch.setattr(webbrowser, "open", opened.put)
    console = recorded()
    DemoView(console, PLAN, open_console=opens).console("http://127.0.0.1:8080/console")
    assert console.export_text().splitlines() == ["console: http://127.0.0.1:8080/console"]
    assert opens is False or opened.get(timeout=10) == "http://127.0.0.1:8080/console"
    assert opened.empty()
