"""The audit of dependencies fails on what is known, and says so when nobody can be asked."""

import runpy

import pytest
from sources import ROOT

AUDIT = runpy.run_path(str(ROOT / ".ci/audit.py"))
report, pinned = AUDIT["report"], AUDIT["pinned"]
WANTED = ["good==1.0", "bad==2.0"]


class Service:
    """Knows flaws of `bad`, or answers as it is told; keeps what it was asked, and within how many seconds."""

    def __init__(self, *flaws, answer=()):
        self.flaws, self.answer, self.asked, self.waited_s = list(flaws), answer, [], 0.0

    def __call__(self, requirements, within_s):
        self.asked.append([*requirements])
        self.waited_s += within_s
        if self.answer != ():
            return self.answer
        named = [requirement.split("==") for requirement in requirements]
        return [{"name": n, "version": v, "vulns": self.flaws if n == "bad" else []} for n, v in named]


def test_a_known_vulnerability_fails_and_its_line_says_where_it_is_fixed():
    told = "audit: 2 of 2 packages asked about, {} known vulnerabilities".format
    assert report(WANTED, Service()) == (0, [told(0)])
    service = Service({"id": "CVE-2026-1", "fix_versions": ["2.1"]})
    assert report(WANTED, service) == (1, ["bad 2.0: CVE-2026-1, fixed in 2.1", told(1)])
    assert service.waited_s <= 30.0, "both questions together"


@pytest.mark.parametrize("answer", [None, [], [{"name": "good", "skip_reason": "not found"}]])
def test_a_service_that_cannot_be_reached_is_one_line_and_one_question(answer):
    service = Service(answer=answer)
    code, (line,) = report(WANTED, service)
    assert (code, service.asked) == (0, [WANTED[:1]])
    assert "cannot be reached" in line


def test_requirements_are_read_from_the_lock_as_it_is_exported():
    text = "# made by uv\na-b==1.2 ; python_version < '3.12' \\\n    --hash=sha256:00\n    # via c\nd.e==2\n"
    assert pinned(text) == ["a-b==1.2", "d.e==2"]
