"""Known vulnerabilities of what uv.lock installs: `.ci/audit.py REQUIREMENTS`, at most half a minute.

pip-audit asks a service about each package. Where that service cannot be reached (no network, an index that serves
files only) it either fails or passes over every package; both must not look like "none is known", nor fail a build that
changed nothing. So one package is asked about first, and then all.

Exit code 1: a vulnerability is known, its line says where it is fixed. 0: none is, or nobody could be asked, which is
said.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WITHIN_S = 30.0
Audit = Callable[[Sequence[str], float], "list[dict[str, Any]] | None"]
"""What is known about requirements, one record a package; None when nobody answers in time."""


def pinned(text: str) -> list[str]:
    """The requirements `name==version` of an exported lock, without digests and markers."""
    return re.findall(r"^[A-Za-z0-9][\w.-]*==[^\s;\\]+", text, flags=re.MULTILINE)


def pip_audit(requirements: Sequence[str], within_s: float) -> list[dict[str, Any]] | None:
    """Ask with pip-audit."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--disable-pip",
        "--no-deps",
        "--progress-spinner=off",
        "--format=json",
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        try:
            done = subprocess.run(
                [*command, "--timeout=5", "--cache-dir", folder, "--requirement", str(file)],
                capture_output=True,
                text=True,
                timeout=within_s,
                check=False,
            )
            found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            return None
    return found


def report(requirements: Sequence[str], audit: Audit, within_s: float = WITHIN_S) -> tuple[int, list[str]]:
    """Exit code and lines of an audit."""
    first = audit(requirements[:1], within_s / 3)
    known = audit(requirements, within_s * 2 / 3) if first and "vulns" in first[0] else None
    if known is None:
        return 0, ["audit: the vulnerability service cannot be reached, so nothing is known about the dependencies"]
    asked = [each for each in known if "vulns" in each]
    lines = [
        f"{each['name']} {each['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'none yet'}"
        for each in asked
        for flaw in each["vulns"]
    ]
    summary = f"audit: {len(asked)} of {len(requirements)} packages asked about, {len(lines)} known vulnerabilities"
    return int(bool(lines)), [*lines, summary]


if __name__ == "__main__":
    code, said = report(pinned(Path(sys.argv[1]).read_text(encoding="utf-8")), pip_audit)
    print("\n".join(said))
    sys.exit(code)
