"""A UBJSON file is walked through to its end before a reader that trusts it."""

import pytest

from clipper_stream.models.runtimes.ubjson import check_whole

WHOLE = [
    b"{}",
    b"{i\x01aZ}",
    b"{i\x01aSi\x02bc}",
    b"{i\x01a[]}",
    b"{i\x01a[i\x01U\x02TF]}",
    b"{i\x01a[$d#L" + (3).to_bytes(8, "big") + bytes(12) + b"}",
    b"{i\x01a[#i\x02TF}",
    b"{i\x01a{i\x01b{}}i\x01cD" + bytes(8) + b"}",
    b"{i\x01a{$i#i\x01i\x01b\x07}",
]


@pytest.mark.parametrize("content", WHOLE)
def test_a_whole_object_is_taken_and_one_that_is_cut_off_anywhere_is_refused(content):
    check_whole(content)
    for size in range(len(content)):
        with pytest.raises(ValueError):
            check_whole(content[:size])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "begins with"),
        (b"{}x", "ends at byte 2, and the file has 3"),
        (b"{i\x01aX}", "begins no value"),
        (b"{i\xffaZ}", "a length of -1"),
        (b"{Sx", "begins no length"),
        (b"{i\x01a[$d]}", "has no length"),
        (b"{i\x01a[$d#L\x7f" + bytes(7) + b"}", "the file ends at"),
        (b"{i\x01a" + b"[" * 200, "nested deeper than 64"),
        (b"\x80\x04K\x01.", "begins with"),
    ],
)
def test_what_is_no_object_is_told_by_its_byte(content, message):
    with pytest.raises(ValueError, match=message):
        check_whole(content)
