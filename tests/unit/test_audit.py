"""The audit of dependencies fails on what is known, and says so when nobody can be asked."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci/audit.py")
assert spec is not None
assert spec.loader is not None
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

WANTED = ["good==1.0", "bad==2.0"]
FLAW = {"id": "CVE-2026-1", "fix_versions": ["2.1"]}


def service(flaws):
    """One that knows these flaws by package."""
    known = [{"name": r.partition("==")[0], "version": r.partition("==")[2], "vulns": []} for r in WANTED]
    for package in known:
        package["vulns"] = flaws.get(package["name"], [])
    return lambda requirements, within_s: known[: len(requirements)]


def test_a_known_vulnerability_fails_and_its_line_says_where_it_is_fixed():
    code, lines = audit.report(WANTED, service({"bad": [FLAW]}))
    assert code == 1
    assert lines == [
        "bad 2.0: CVE-2026-1, fixed in 2.1",
        "audit: 2 of 2 packages asked about, 1 known vulnerabilities",
    ]


def test_no_known_vulnerability_passes():
    assert audit.report(WANTED, service({}))[0] == 0


@pytest.mark.parametrize(
    "answer", [None, [], [{"name": "good", "skip_reason": "not found"}]], ids=["no answer", "nothing", "passed over"]
)
def test_a_service_that_cannot_be_reached_is_one_line_and_one_question(answer):
    asked = []

    def unreachable(requirements, within_s):
        asked.append(list(requirements))
        return answer

    code, lines = audit.report(WANTED, unreachable)
    assert (code, len(lines)) == (0, 1)
    assert "cannot be reached" in lines[0]
    assert asked == [WANTED[:1]]


def test_both_questions_together_take_half_a_minute_at_most():
    waited = []

    def slow(requirements, within_s):
        waited.append(within_s)
        return service({})(requirements, within_s)

    audit.report(WANTED, slow)
    assert sum(waited) <= 30.0


def test_requirements_are_read_from_the_lock_as_it_is_exported():
    text = "# made by uv\na-b==1.2 ; python_version < '3.12' \\\n    --hash=sha256:00\n    # via c\nd.e==2\n"
    assert audit.pinned(text) == ["a-b==1.2", "d.e==2"]
