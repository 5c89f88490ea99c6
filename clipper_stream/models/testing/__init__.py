"""Whether a model keeps the laws that a host relies on, found out before it is deployed.

from clipper_stream.models.testing import assert_model

def test_my_model_can_be_served():
    assert_model("acme.models:brightness", rows, dtype="float32", shape=[64])
"""

from clipper_stream.models.testing.check import Report, assert_model, check_model

__all__ = ["Report", "assert_model", "check_model"]
