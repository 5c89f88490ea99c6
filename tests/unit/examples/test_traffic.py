"""What the traffic of an example says of itself where it shows nothing."""

import numpy as np
import pytest

from clipper_loadgen import Dataset
from examples.shared.traffic import LabelledTraffic, TrafficSecond


@pytest.mark.parametrize(
    ("sent", "answered", "fed_back", "defaults", "why"),
    [
        (100, 100, 100, 5, ""),
        (100, 99, 99, 0, "1 of 100 queries were not answered"),
        (100, 100, 98, 0, "2 of 100 feedbacks could not be sent"),
        (100, 100, 100, 6, "6 of 100 answers were default outputs: this machine is too slow, or busy"),
    ],
)
def test_traffic_says_in_a_sentence_why_it_shows_nothing(sent, answered, fed_back, defaults, why):
    traffic = LabelledTraffic(None, "digits", Dataset(np.zeros((1, 2)), np.zeros(1)), 10.0)
    traffic.sent, traffic.answered, traffic.fed_back = sent, answered, fed_back
    traffic.seconds[7] = TrafficSecond(defaults=defaults)
    assert traffic.failure() == why
