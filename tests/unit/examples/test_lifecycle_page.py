"""Does the page of a lifecycle show every version and change, and need nothing but itself?"""

import math
import re
from xml.etree import ElementTree as ET

import pytest
from builders.pages import BrowsedPage

pytest.importorskip("matplotlib")

from clipper_topics.change import Change
from examples.lifecycle.page import (
    DEFAULT,
    LifecycleSample,
    lifecycle_figure,
    lifecycle_report,
    lifecycle_samples,
    render_lifecycle,
)
from examples.shared.traffic import TrafficSecond

START_S = 1_700_000_000.0


def change(revision, command, at_s, why=""):
    at_ms = int(1000 * (START_S + at_s))
    about = dict(application="digits", model="rf:2", by="rollout")
    return Change(revision=revision, command=command, at_ms=at_ms, why=why, **about)


def sample(second):
    """A version that comes at the fourth second, has losses from the sixth on, and answers all from the eighth on."""
    share = 0.0 if second < 4 else 0.25 if second < 8 else 1.0
    shares = {model: each for model, each in (("svm:1", 1.0 - share), ("rf:2", share)) if each}
    losses = {"svm:1": 0.1} | ({"rf:2": 0.05} if second >= 6 else {})
    return LifecycleSample(at_s=START_S + second, shares=shares, losses=losses)


SAMPLES = [sample(second) for second in range(10)]
CHANGES = [change(3, "promote", 8.0, "upper end < 0.02 & sure"), change(2, "canary", 4.0)]


def test_the_page_needs_nothing_but_itself_and_its_figure_has_a_mark_a_change_in_each_panel_and_text(tmp_path):
    page = lifecycle_report(tmp_path / "lifecycle.html", CHANGES, SAMPLES).read_text()
    assert not re.findall(r"https?:|//|<script|<link|@import|<image", page)
    assert {address[0] for address in BrowsedPage(page).addresses} == {"#"}
    element = ET.fromstring(page[page.index("<svg") : page.index("</svg>") + len("</svg>")])
    marks = [each.get("id") for each in element.iter("g") if (each.get("id") or "").startswith("change-")]
    assert sorted(marks) == ["change-2", "change-2", "change-3", "change-3"]
    texts = {"".join(each.itertext()) for each in element.iter("text")}
    assert {"1 canary", "2 promote", "svm:1", "rf:2", "mean loss"} <= texts
    again = lifecycle_report(tmp_path / "again.html", CHANGES, SAMPLES)
    assert page == again.read_text(), "the same run has the same page"


def test_default_outputs_have_a_share_of_their_own_and_no_loss():
    second = TrafficSecond(answers={"svm:1": 3}, wrong={"svm:1": 1}, defaults=1)
    first, last = lifecycle_samples({7: second, 8: TrafficSecond(defaults=2), 9: TrafficSecond()})
    assert (first.shares, first.losses) == ({"svm:1": 0.75, DEFAULT: 0.25}, {"svm:1": pytest.approx(1 / 3)})
    assert (last.shares, last.losses) == ({DEFAULT: 1.0}, {})
    assert "2 of 8 were defaults" in render_lifecycle(CHANGES, [first], "a life", "2 of 8 were defaults")


def test_changes_are_numbered_in_order_of_time_and_what_somebody_wrote_is_no_markup():
    page = render_lifecycle([*CHANGES, change(4, "abort", 9.0, "<b>no</b>")], SAMPLES, "a <i>title</i>")
    rows = re.findall(r"<tr>(.*?)</tr>", page.split("<h2>Changes</h2>")[1].split("</section>")[0])
    assert [re.findall(r"<td[^>]*>([^<]*)</td>", row)[:3] for row in rows[1:]] == [
        ["1", "4.0 s", "canary"],
        ["2", "8.0 s", "promote"],
        ["3", "9.0 s", "abort"],
    ]
    assert "upper end &lt; 0.02 &amp; sure" in page
    assert "<b>no</b>" not in page
    assert "<i>" not in page


def lines_of(panel):
    drawn = lifecycle_figure(sorted(CHANGES, key=lambda one: one.at_ms), SAMPLES).axes[panel]
    return {line.get_label(): [float(y) for y in line.get_ydata()] for line in drawn.lines if line.get_gid() is None}


def test_a_version_begins_with_its_first_share_and_feedback_and_is_at_nothing_when_it_is_left_out():
    shares, losses = lines_of(0), lines_of(1)
    assert shares["svm:1"] == [100.0] * 4 + [75.0] * 4 + [0.0] * 2
    assert shares["rf:2"] == pytest.approx([math.nan] * 4 + [25.0] * 4 + [100.0] * 2, nan_ok=True)
    assert losses["svm:1"] == [0.1] * 10
    assert losses["rf:2"] == pytest.approx([math.nan] * 6 + [0.05] * 4, nan_ok=True)
