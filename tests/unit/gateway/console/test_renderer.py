"""Do templates keep the Content-Security-Policy, and the vendored files the digests that are written down?"""

import hashlib
import re
from pathlib import Path

import pytest
from builders.console import MARKUP, html, renderer

import clipper_gateway.console
from clipper_gateway.console.page import Page
from clipper_gateway.console.renderer import TEMPLATES

STATIC = Path(clipper_gateway.console.__file__).parent / "static"
VENDORED = STATIC / "vendor/VENDORED.md"
PAGES = sorted(TEMPLATES.rglob("*.html"))
FORBIDDEN = re.compile(
    r"""\sstyle\s*=|\son[a-z]+\s*=\s*[\"']|<style|<script(?![^>]* src=)|javascript:|\|\s*safe\b|autoescape"""
)
"""What the policy forbids, and what would make text markup."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TEMPLATES)))
def test_no_template_has_inline_scripts_or_styles_or_unescaped_text(page: Path) -> None:
    assert FORBIDDEN.findall(page.read_text()) == []


@pytest.mark.parametrize(
    "bad",
    [
        '<p style="x">',
        "<b onclick='x'>",
        "<style>",
        "<script>alert(1)</script>",
        '<a href="javascript:x">',
        "{{ x|safe }}",
    ],
    ids=["style", "handler", "sheet", "script", "url", "safe"],
)
def test_what_is_forbidden_in_templates_is_found(bad: str) -> None:
    assert FORBIDDEN.search(bad)


def test_vendored_files_are_those_whose_digests_are_written_down() -> None:
    rows = re.findall(r"^\| \[(\S+)\]\(\1\) \| .+ \| `([0-9a-f]{64})` \|$", VENDORED.read_text(), flags=re.MULTILINE)
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDORED.parent.glob("*.*s")}
    assert dict(rows) == found


def test_every_vendored_licence_is_there() -> None:
    licences = re.findall(r"\]\((LICENSE-\w+)\)", VENDORED.read_text())
    assert len(licences) == 3
    assert all((VENDORED.parent / name).read_text() for name in licences)


def test_every_file_that_a_page_refers_to_exists() -> None:
    shown = html(Page(template="loading.html", title="Overview", data={"is_live": True, "stale": "", "at_s": 0.0}))
    names = re.findall(r'"/console/static/([^"]+)"', shown)
    assert len(names) > 8
    assert [name for name in names if not (STATIC / name).is_file()] == []


def test_an_error_is_a_page_of_the_same_design_for_who_is_not_signed_in() -> None:
    about = {"status": 404, "phrase": "Not found", "message": f"{MARKUP}: see `clipper-stream status`"}
    shown = renderer().render("error.html", caller=None, csrf="", **about)
    assert "&lt;img src=x" in shown
    assert "<code>clipper-stream status</code>" in shown
    assert "<nav" not in shown
