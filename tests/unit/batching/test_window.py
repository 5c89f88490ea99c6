"""Rules of the window one by one; `WindowMachine` compares all of them with a plain list."""

from math import inf, nan, nextafter

import pytest

from clipper_stream.batching.window import Taken, Window
from clipper_stream.errors import InvalidSetting

AB = [("a", "s", inf, 0.0), ("b", "s", inf, 0.25)]
BY_SHAPE = [("a", "A", inf, 0.0), ("b1", "B", inf, 0.1), ("b2", "B", inf, 0.1)]
SOON = [("a", "s", 1.0, 0.0)]


@pytest.mark.parametrize(
    ("max_delay_s", "rows", "at_s", "limit_rows", "needed_s", "expected"),
    [
        pytest.param(0.5, AB, 0.25, 8, 0.0, ([], [], 0.5), id="fewer rows than the limit wait"),
        pytest.param(0.5, AB, 0.5, 8, 0.0, (["a", "b"], [], None), id="until the oldest has waited long enough"),
        pytest.param(9.0, AB, 0.25, 2, 0.0, (["a", "b"], [], None), id="a full batch does not wait"),
        pytest.param(1.0, BY_SHAPE, 0.1, 2, 0.0, (["b1", "b2"], [], 1.0), id="nor does a full shape for an older one"),
        pytest.param(0.0, SOON, nextafter(1.0, 0.0), 8, 0.0, (["a"], [], None), id="in time before its deadline"),
        pytest.param(0.0, SOON, 1.0, 8, 0.0, ([], ["a"], None), id="late at its deadline"),
        pytest.param(0.0, SOON, 0.7, 8, 0.3, ([], ["a"], None), id="late when it cannot be answered in time"),
        pytest.param(0.0, SOON, 0.6, 8, 0.3, (["a"], [], None), id="in time when it can"),
        pytest.param(0.0, SOON, 0.05, 8, 5.0, (["a"], [], None), id="tried at once however little time it has"),
    ],
)
def test_rows_go_wait_or_are_late(max_delay_s, rows, at_s, limit_rows, needed_s, expected):
    window = Window(max_delay_s)
    for row in rows:
        window.add(*row)
    assert window.take(at_s, limit_rows, needed_s) == Taken(batch=expected[0], late=expected[1], wake_at_s=expected[2])


@pytest.mark.parametrize("max_delay_s", [-0.001, nan])
def test_a_negative_delay_is_refused(max_delay_s):
    with pytest.raises(InvalidSetting, match="max_delay_s"):
        Window(max_delay_s)
