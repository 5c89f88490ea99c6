"""The life of an application's versions over time as one HTML page: shares, losses, and each change as a mark.

Times are seconds since the first sample, on the page as in the figure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipper_stream.evaluation.report.page import TEMPLATES, page_environment
from clipper_stream.evaluation.report.plots import SVG, line_style, panels, svg
from clipper_topics.change import Change
from examples.shared.traffic import TrafficSecond

COMMAND_COLOURS = {"promote": "#1a7f4b", "abort": "#b3261e", "rollback": "#b3261e", "retire": "#777777"}
CHANGE_COLOUR = "#555555"
DEFAULT = "default output"


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleSample:
    """One second of an application.

    Attributes:
        at_s: When, seconds since the epoch.
        shares: Share of the queries that each version answered, in [0, 1].
        losses: Mean loss of each version over the feedback of that time, in [0, 1]; one without feedback is left out.
    """

    at_s: float
    shares: Mapping[str, float] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)


def lifecycle_samples(seconds: Mapping[int, TrafficSecond]) -> list[LifecycleSample]:
    """The samples of traffic, in which default outputs have a share too; a second without an answer has none."""
    found = []
    for at_s, second in sorted(seconds.items()):
        answers = {**dict(sorted(second.answers.items())), **({DEFAULT: second.defaults} if second.defaults else {})}
        shares = {ref: count / sum(answers.values()) for ref, count in answers.items()}
        losses = {ref: second.wrong[ref] / count for ref, count in answers.items() if ref != DEFAULT}
        found += [LifecycleSample(at_s=float(at_s), shares=shares, losses=losses)] if answers else []
    return found


def lifecycle_report(
    path: Path, events: Sequence[Change], samples: Sequence[LifecycleSample], title: str = "Models live", lead: str = ""
) -> Path:
    """Write the page.

    Args:
        path: Of the HTML file; its folder exists.
        events: Changes of the application, in any order.
        samples: In order of time, at least one.
        title: Of the page.
        lead: What else its first sentences say.

    Returns:
        The path.

    Raises:
        ValueError: there is no sample.
        OSError: the file cannot be written.
    """
    path.write_text(render_lifecycle(events, samples, title, lead), encoding="utf-8")
    return path


def render_lifecycle(events: Sequence[Change], samples: Sequence[LifecycleSample], title: str, lead: str = "") -> str:
    """The page; arguments and errors as of `lifecycle_report`."""
    if not samples:
        raise ValueError("0 samples: take at least 1, a second each, while queries flow")
    first_s, last_s = samples[0].at_s, samples[-1].at_s
    marks = sorted(events, key=lambda event: (event.at_ms, event.revision))
    refs = versions_of(samples)
    told = f"{len({*refs} - {DEFAULT})} versions, {len(marks)} changes, {last_s - first_s:.0f} seconds. {lead}"
    return (
        page_environment(TEMPLATES, Path(__file__).parent)
        .get_template("page.html")
        .render(
            title=title,
            lead=told.strip(),
            figure=svg(lifecycle_figure(marks, samples)),
            changes=[(f"{mark.at_ms / 1000 - first_s:.1f} s", mark) for mark in marks],
            versions=list(_version_rows(refs, samples)),
        )
    )


def versions_of(samples: Iterable[LifecycleSample]) -> list[str]:
    """Every version that has a share or a loss, in the order in which they come."""
    return list(dict.fromkeys(ref for sample in samples for ref in (*sample.shares, *sample.losses)))


def lifecycle_figure(marks: Sequence[Change], samples: Sequence[LifecycleSample]) -> Figure:
    """Shares above, losses below, over the same time.

    Args:
        marks: Changes in order of time.
        samples: In order of time, at least one.
    """
    with mpl.rc_context(SVG):
        figure, (above, below) = panels(2, 1, 7.2, sharex=True)
        for axes, what in ((above, "shares"), (below, "losses")):
            _lines(axes, what, samples)
            _marks(axes, marks, samples[0].at_s)
        _numbers(above, marks, samples[0].at_s)
        above.set_ylabel("share of queries, %")
        above.set_ylim(0, 103)
        below.set_ylabel("mean loss")
        below.set_ylim(bottom=0)
        below.set_xlabel("time, s")
        below.set_xlim(*_span(marks, samples))
        above.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9)
    return figure


def _lines(axes: Axes, what: str, samples: Sequence[LifecycleSample]) -> None:
    """A line a version: its share from the first one on, 0 where it is left out; its loss where it has feedback."""
    times = [sample.at_s - samples[0].at_s for sample in samples]
    for number, ref in enumerate(versions_of(samples)):
        if what == "shares":
            begins = next((at for at, sample in enumerate(samples) if ref in sample.shares), len(samples))
            values = [100 * sample.shares.get(ref, 0.0) for sample in samples]
            values[:begins] = [float("nan")] * begins
        else:
            values = [sample.losses.get(ref, float("nan")) for sample in samples]
        style: dict[str, Any] = {
            **line_style(number),
            "lw": 1.8,
            "marker": "o" if len(samples) == 1 else None,
        }
        axes.plot(times, values, label=ref, **style)


def _marks(axes: Axes, marks: Sequence[Change], first_s: float) -> None:
    for mark in marks:
        colour = COMMAND_COLOURS.get(mark.command, CHANGE_COLOUR)
        axes.axvline(mark.at_ms / 1000 - first_s, color=colour, lw=1.1, ls=(0, (4, 3)), gid=f"change-{mark.revision}")


def _numbers(axes: Axes, marks: Sequence[Change], first_s: float) -> None:
    for number, mark in enumerate(marks, 1):
        colour = COMMAND_COLOURS.get(mark.command, CHANGE_COLOUR)
        place = (mark.at_ms / 1000 - first_s, 1.01)
        axes.annotate(
            f"{number} {mark.command}",
            place,
            xycoords=("data", "axes fraction"),
            rotation=40,
            color=colour,
            fontsize=9,
            annotation_clip=False,
        )


def _span(marks: Sequence[Change], samples: Sequence[LifecycleSample]) -> tuple[float, float]:
    first_s = samples[0].at_s
    times = [0.0, samples[-1].at_s - first_s, *(mark.at_ms / 1000 - first_s for mark in marks)]
    return min(times), max(*times, min(times) + 1.0)


def _version_rows(refs: Iterable[str], samples: Sequence[LifecycleSample]) -> Iterable[tuple[str, ...]]:
    for ref in refs:
        shares = [sample.shares.get(ref, 0.0) for sample in samples]
        losses = [sample.losses[ref] for sample in samples if ref in sample.losses]
        mean = sum(shares) / len(shares)
        ratios = (f"{share:.1%}" for share in (shares[0], mean, shares[-1]))
        yield ref, *ratios, f"{losses[-1]:.3f}" if losses else "-"
