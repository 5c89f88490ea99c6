"""A server is asked when the operator's list has the beginning of its URL, read as every client reads it."""

import pytest

from clipper_stream.models.allowlist import allows_file, allows_module, allows_url

MODEL = "http://models:8080/v2/models/digits"


@pytest.mark.parametrize(
    "entry",
    [
        MODEL,
        "http://models:8080",
        "http://models:8080/",
        "http://models:8080/v2/models",
        "http://models:8080/v2/models/",
        "HTTP://Models:8080/v2",
    ],
)
def test_what_is_below_an_entry_is_allowed(entry):
    assert allows_url(["acme.models", "/srv/models", entry], MODEL)
    assert allows_url([entry], f"{MODEL}/versions/2")


def test_the_default_port_is_the_one_that_is_not_written():
    assert allows_url(["https://models:443"], "https://models/v2/models/a")
    assert allows_url(["http://models"], "http://models:80/v2/models/a")
    assert not allows_url(["http://models"], "http://models:443/v2/models/a")


@pytest.mark.parametrize(
    "entry",
    [
        "https://models:8080",
        "http://models:8081",
        "http://models",
        "http://model:8080",
        "http://models.evil:8080",
        "http://models:8080/v2/models/digit",
        "http://models:8080/v2/models/digits2",
        "http://models:8080/v2/models/digits/versions",
        "http://user@models:8080",
        "models:8080",
        "/models:8080",
        "http://",
        "://",
        "http://[::1",
    ],
)
def test_another_scheme_host_port_or_path_is_not(entry):
    assert not allows_url([entry], MODEL)


@pytest.mark.parametrize(
    "url",
    [
        "http://models:8080@evil/v2/models/a",
        "http://models:8080/v2/models/../../admin",
        "http://models:8080/v2/models/./a",
        "http://models:8080/v2/models/%2e%2e/admin",
        "http://models:8080//evil/v2/models/a",
        "http://models:8080/v2/models/a?x=1",
        "http://models:8080/v2/models/a#b",
        "http://models:8080\\@evil/v2/models/a",
        "http://models:8080/v2/models/a b",
        "http://models:8080/v2/models/a\r\nHost: evil",
        "http://models:8080/v2/models/\u0430",
        "\thttp://models:8080/v2/models/a",
        "http://models:port/v2/models/a",
        "http://models:0/v2/models/a",
        "file:///etc/passwd",
        "ftp://models:8080/v2/models/a",
    ],
)
def test_what_two_programs_read_differently_is_below_nothing(url):
    assert not allows_url(["http://models:8080", "http://models", url], url)


def test_a_url_is_neither_a_directory_nor_a_module():
    assert not allows_file([MODEL, "http://models:8080"], "http:/models:8080/a")
    assert not allows_module([MODEL], "http")
