import pytest

from clipper_topics.codec import UndecodableRecord
from clipper_topics.dead_letter import NotADeadLetter, dead_letter_headers, read_dead_letter

ERROR = UndecodableRecord("not application/json: Expected `object`, got `array`")


def test_the_headers_have_the_names_and_the_text_values_of_KIP_1034_and_the_last_death_is_read():
    headers = dead_letter_headers("clipper.queries", 3, 2**40, ERROR)
    assert dict(headers) == {
        "__streams.errors.exception": b"clipper_topics.codec.UndecodableRecord",
        "__streams.errors.message": str(ERROR).encode(),
        "__streams.errors.topic": b"clipper.queries",
        "__streams.errors.partition": b"3",
        "__streams.errors.offset": b"%d" % 2**40,
    }
    letter = read_dead_letter([("content-type", b"application/json"), ("x", None), *headers])
    assert (letter.topic, letter.partition, letter.offset) == ("clipper.queries", 3, 2**40)
    assert letter.message == str(ERROR)
    first = dead_letter_headers("t", 0, 1, ValueError("first"))
    assert read_dead_letter([*first, *dead_letter_headers("t", 0, 2, ValueError("\ud800"))]).message == "\\ud800"


def test_a_record_that_is_no_dead_letter_and_a_partition_that_is_no_number_are_refused():
    with pytest.raises(NotADeadLetter, match="no header __streams"):
        read_dead_letter([("content-type", b"application/json")])
    with pytest.raises(NotADeadLetter, match="must be numbers"):
        read_dead_letter([*dead_letter_headers("t", 0, 1, ERROR), ("__streams.errors.partition", b"\0\0\0\3")])
