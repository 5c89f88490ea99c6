"""What `clipper-stream loadgen` makes of its options: a plan in seconds, refused before Kafka is asked."""

import dataclasses
import inspect

import pytest

from clipper_agents import exits
from clipper_agents.cli import main as program
from clipper_agents.cli.loadgen import loadgen
from clipper_loadgen import LoadPlan

OPTION_OF = {
    "rate_per_s": "rate",
    "duration_s": "seconds",
    "warmup_s": "warmup_seconds",
    "zipf_exponent": "zipf",
    "repeat_ratio": "repeats",
    "feedback_delay_s": "feedback_delay_ms",
    "label_noise_ratio": "label_noise",
    "linger_s": "linger_ms",
    "drain_s": "drain_seconds",
    "dataset": "inputs",
    "mode": "saturate",
}
"""Fields of a plan whose option has another name."""


def test_every_field_of_a_plan_is_an_option_with_the_same_default():
    offered = inspect.signature(loadgen).parameters
    for field in dataclasses.fields(LoadPlan):
        default = offered[OPTION_OF.get(field.name, field.name)].default
        if field.name == "mode":
            assert (field.default, default) == ("rate", False)
        elif field.name != "application":
            assert field.default == default, field.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--linger-ms", "100"], "linger_s is 0.1"),
        (["--feedback-delay-ms", "-50"], "feedback_delay_s is -0.05"),
        (["--seconds", "4", "--warmup-seconds", "1", "--rate", "2e6"], "10000000 queries: at most"),
        (["--saturate", "--queries", "0", "--warmup-seconds", "-1"], "queries is 0"),
        (["--labels", "labels.npy"], "give --inputs"),
        (["--inputs", "rows.csv"], "use a .npy file"),
    ],
)
def test_options_are_checked_as_a_plan_in_seconds(options, message, capsys):
    assert program.main(["loadgen", "--application", "digits", *options]) == exits.SETUP
    assert message in " ".join(capsys.readouterr().err.split())
