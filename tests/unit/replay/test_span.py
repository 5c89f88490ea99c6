import pytest
import typer

from clipper_agents.cli.options import span_from
from clipper_agents.replay.span import EmptySpan, Span

DAY = "1970-01-02T00:00:00+00:00"
MINUTE = "1970-01-01T00:00:10+00:00", "1970-01-01T00:01:00+00:00", "2h", 60.0


@pytest.mark.parametrize(
    ("options", "span"),
    [
        ((None, None, None, 60.0), dict(horizon_s=60.0)),
        (MINUTE, dict(since_ms=10_000, until_ms=60_000, horizon_s=7_200.0)),
    ],
)
def test_options_say_times_and_the_horizon(options, span):
    assert span_from(*options) == Span(**span)


def test_an_age_is_the_same_with_a_sign_and_without():
    ages = [span_from(age, None).since_ms for age in ("-2h", "2h")]
    assert ages[0] == pytest.approx(ages[1], abs=1_000)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (("soon", None), typer.BadParameter, "--since soon: write 30m"),
        (("2h", "soon"), typer.BadParameter, "--until soon: write 30m"),
        *((("2h", None, text), typer.BadParameter, "--horizon .*: write 90s") for text in ("0", "2 hours", "-1s")),
        (("1h", "2h"), EmptySpan, "give a later end"),
        ((DAY, DAY), EmptySpan, "give a later end"),
    ],
)
def test_options_that_cannot_be_read_or_name_an_empty_span_are_refused(options, error, said):
    with pytest.raises(error, match=said):
        span_from(*options)
