import pytest

from clipper_topics.codec import UndecodableRecord, queries
from clipper_topics.dead_letter import NotADeadLetter, dead_letter_headers, read_dead_letter


def raised_by_decoding(value):
    try:
        queries.decode(value)
    except UndecodableRecord as error:
        return error
    return None


def test_the_headers_have_the_names_and_the_text_values_of_KIP_1034():
    headers = dict(dead_letter_headers("clipper.queries", 3, 41, raised_by_decoding(b"[]")))
    assert headers == {
        "__streams.errors.exception": b"clipper_topics.codec.UndecodableRecord",
        "__streams.errors.message": b"not application/json: Expected `object`, got `array`",
        "__streams.errors.topic": b"clipper.queries",
        "__streams.errors.partition": b"3",
        "__streams.errors.offset": b"41",
    }


def test_headers_that_were_written_are_read_again_among_others():
    error = raised_by_decoding(b"[]")
    headers = [("content-type", b"application/json"), ("x", None), *dead_letter_headers("t", 0, 2**40, error)]
    letter = read_dead_letter(headers)
    assert (letter.topic, letter.partition, letter.offset) == ("t", 0, 2**40)
    assert letter.message == str(error)


def test_a_message_that_is_no_valid_text_is_written_all_the_same():
    assert "\\ud800" in read_dead_letter(dead_letter_headers("t", 0, 1, ValueError("\ud800"))).message


def test_of_a_letter_that_died_twice_the_last_death_is_read():
    first = dead_letter_headers("t", 0, 1, ValueError("first"))
    assert read_dead_letter([*first, *dead_letter_headers("t", 0, 2, ValueError("second"))]).message == "second"


def test_a_record_that_is_no_dead_letter_is_refused():
    with pytest.raises(NotADeadLetter, match="no header __streams"):
        read_dead_letter([("content-type", b"application/json")])


def test_a_partition_that_is_no_number_is_refused():
    headers = [*dead_letter_headers("t", 0, 1, ValueError()), ("__streams.errors.partition", b"\x00\x00\x00\x03")]
    with pytest.raises(NotADeadLetter, match="must be numbers"):
        read_dead_letter(headers)
