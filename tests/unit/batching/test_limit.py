import pytest

from clipper_stream.batching.registry import LIMITS, Fixed, make_limit
from clipper_stream.errors import InvalidSetting, UnknownName


def test_an_unknown_kind_is_refused_with_the_kinds_that_exist():
    with pytest.raises(UnknownName, match=r"'tcp'.*aimd, fixed, quantile"):
        make_limit("tcp", 0.02, 10)


def test_every_kind_of_the_manifest_exists():
    assert set(LIMITS) == {"aimd", "fixed", "quantile"}


def test_a_fixed_limit_is_the_largest_batch_of_the_manifest():
    assert make_limit("fixed", 0.02, 32).rows == 32


def test_a_fixed_limit_below_one_row_is_refused():
    with pytest.raises(InvalidSetting, match="rows is 0"):
        Fixed(0)
