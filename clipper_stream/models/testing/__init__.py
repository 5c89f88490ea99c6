"""The model development kit: whether a model keeps the laws that a host relies on, before it is deployed.

from clipper_stream.models.testing import assert_model

def test_my_model_can_be_served():
    assert_model("acme.models:brightness", rows, dtype="float32", shape=[64])
"""

from clipper_stream.models.testing.check import assert_model, check_model
from clipper_stream.models.testing.latency import BatchLatency
from clipper_stream.models.testing.laws import LAWS
from clipper_stream.models.testing.report import Finding, LawsBroken, Report
from clipper_stream.models.testing.subject import random_rows

__all__ = [
    "LAWS",
    "BatchLatency",
    "Finding",
    "LawsBroken",
    "Report",
    "assert_model",
    "check_model",
    "random_rows",
]
