import hashlib
import re
from pathlib import Path

from unit.gateway.console.rig import MARKUP, renderer

import clipper_gateway.console
from clipper_gateway.console.renderer import TEMPLATES

VENDORED = Path(clipper_gateway.console.__file__).parent / "static/vendor/VENDORED.md"
FORBIDDEN = re.compile(
    r"""\sstyle\s*=|\son[a-z]+\s*=\s*[\"']|<style|<script(?![^>]* src=)|javascript:|\|\s*safe\b|autoescape"""
)
"""What the policy forbids, and what would make text markup."""


def test_no_template_has_inline_scripts_or_styles_or_unescaped_text():
    pages = sorted(TEMPLATES.rglob("*.html"))
    assert len(pages) > 10
    assert [(page.name, found) for page in pages if (found := FORBIDDEN.findall(page.read_text()))] == []


def test_vendored_files_are_those_whose_digests_are_written_down_and_have_their_licences():
    written = VENDORED.read_text()
    rows = re.findall(r"^\| \[(\S+)\]\(\1\) \| .+ \| `([0-9a-f]{64})` \|$", written, flags=re.MULTILINE)
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDORED.parent.glob("*.*s")}
    assert dict(rows) == found
    licences = re.findall(r"\]\((LICENSE-\w+)\)", written)
    assert len(licences) == 3
    assert all((VENDORED.parent / name).read_text() for name in licences)


def test_an_error_is_a_page_of_the_same_design_for_who_is_not_signed_in():
    about = {"status": 404, "phrase": "Not found", "message": f"{MARKUP}: see `clipper-stream status`"}
    shown = renderer().render("error.html", caller=None, csrf="", **about)
    assert "&lt;img src=x" in shown
    assert "<code>clipper-stream status</code>" in shown
    assert "<nav" not in shown
