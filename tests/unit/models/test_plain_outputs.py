from decimal import Decimal

import msgspec
import numpy as np
import pytest

from clipper_stream.models.plain_outputs import plain_outputs


class Colour(str):
    """A text of a library's own type, whose `str` says something else."""

    __slots__ = ()

    def __str__(self):
        return "a colour"


ENDLESS: list = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("outputs", "plain"),
    [
        (np.array([1, 2], np.int64), [1, 2]),
        (np.array([1, 2], np.uint8), [1, 2]),
        (np.array([0.5, 1.5], np.float32), [0.5, 1.5]),
        (np.array([True, False]), [True, False]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([[1.0, 2.0], [3.0, 4.0]]), [[1.0, 2.0], [3.0, 4.0]]),
        (np.array([{"a": 1}, None, "x"], object)[[0, 2]], [{"a": 1}, "x"]),
        ([np.float32(0.5), np.float64(1), np.int64(3), np.True_, np.str_("x")], [0.5, 1.0, 3, True, "x"]),
        ([np.array([1, 2]), (3, np.float64(4))], [[1, 2], [3, 4.0]]),
        ([{"class": np.int64(3), "scores": np.array([0.5])}], [{"class": 3, "scores": [0.5]}]),
        ([Colour("red")], ["red"]),
        ([[None, 1]], [[None, 1]]),
        ([2**64 - 1, -(2**63)], [2**64 - 1, -(2**63)]),
        ([], []),
    ],
)
def test_outputs_become_plain_values(outputs, plain):
    converted, failed = plain_outputs(outputs)
    assert (converted, failed) == (plain, {})
    assert [type(output) for output in converted] == [type(output) for output in plain]
    assert msgspec.json.decode(msgspec.json.encode(converted)) == plain
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(converted)) == plain


@pytest.mark.parametrize(
    ("output", "words"),
    [
        *((number, "finite") for number in (np.nan, np.inf, np.float32("nan"), [1.0, np.nan])),
        ({"score": np.array([1.0, np.inf])}, "finite"),
        (None, "null"),
        (object(), "type object"),
        (1 + 2j, "type complex"),
        (np.longdouble(1), "type longdouble"),
        (b"bytes", "type bytes"),
        (Decimal(1), "type Decimal"),
        ({1, 2}, "type set"),
        (np.datetime64("2020-01-01"), "type date"),
        ({1: "a"}, "key of type int"),
        *((number, "64 bits") for number in (2**64, -(2**63) - 1)),
        ("\ud800", "UTF-8"),
        (eval("[" * 33 + "1" + "]" * 33), "deeper"),
        (ENDLESS, "deeper"),
    ],
)
def test_an_output_that_cannot_be_written_down_fails_its_own_row(output, words):
    converted, failed = plain_outputs([1, output, 3])
    assert converted == [1, None, 3]
    assert list(failed) == [1]
    assert words in failed[1]
    assert plain_outputs(np.array([[1.0, 2.0], [np.nan, 1.0]]))[0] == [[1.0, 2.0], None]
