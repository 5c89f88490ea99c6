import io
import queue
import webbrowser

import pytest
from builders.pages import BrowsedPage
from rich.console import Console
from unit.demo.fabricated import PLAN, fabricate, sample

from clipper_agents.demo.view import DemoView

pytest.importorskip("matplotlib")

from clipper_agents.demo.report import CAPTIONS, print_summary, write_json, write_report


@pytest.fixture(scope="module")
def run():
    return fabricate()


@pytest.fixture
def console():
    return Console(record=True, width=140, force_terminal=False, file=io.StringIO())


def test_the_report_needs_nothing_but_itself_says_what_happened_and_has_its_figures_beside_it(run, tmp_path):
    recorder, result = run
    page = write_report(result, recorder, [], tmp_path).read_text()
    assert [address[:22] for address in BrowsedPage(page).addresses] == ["data:image/png;base64,"] * 4
    assert [word for word in ("<script", "http://", "https://") if word in page] == []
    assert "good:1, began to answer wrong digits" in page
    assert "Every query was answered exactly once" in page
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir() if path.suffix == ".png"}
    assert sizes.keys() == {f"{name}.png" for name in CAPTIONS}
    assert min(sizes.values()) > 10_000
    write_json(result, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "result.json").read_bytes()


def test_the_report_says_what_failed_and_escapes_it_even_of_a_run_without_any_answer(tmp_path):
    recorder, result = fabricate(skipped=range(PLAN.queries))
    page = write_report(result, recorder, ["answers: 1 < 2"], tmp_path).read_text()
    assert "answers: 1 &lt; 2" in page
    assert "Every query was answered exactly once" not in page


# --- in a terminal -----------------------------------------------------------------------------------------------
def test_the_summary_has_every_error_and_what_failed(run, console):
    print_summary(console, run[1], ["offsets: not committed"])
    text = console.export_text()
    for said in ("exp3", "good:1 broke", "100.0 (92.9-100.0)", "FAILED offsets: not committed"):
        assert said in text


def test_a_line_says_how_far_the_run_is_every_few_seconds(console):
    view = DemoView(console, PLAN)
    view.stage("starting")
    view.sample(sample(1.0, 300, {"applied": 90.0}))
    view.sample(sample(1.1, 301, {}))
    _, line = console.export_text().splitlines()
    assert "300/400 restored exp3=fair:75%" in line
    assert "cached=7% defaults=0 learned=90/300" in line


@pytest.mark.parametrize("opens", [True, False], ids=["opened", "not opened"])
def test_the_address_of_the_console_is_a_line_and_opened_if_asked_for(monkeypatch, console, opens):
    opened = queue.Queue()
    monkeypatch.setattr(webbrowser, "open", opened.put)
    DemoView(console, PLAN, open_console=opens).console("http://127.0.0.1:8080/console")
    assert console.export_text().splitlines() == ["console: http://127.0.0.1:8080/console"]
    assert opens is False or opened.get(timeout=10) == "http://127.0.0.1:8080/console"
    assert opened.empty()
