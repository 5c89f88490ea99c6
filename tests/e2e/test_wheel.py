"""The wheel, as it is installed where nobody has the repository."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from e2e.programs import Program, environment
from sources import ROOT

pytestmark = pytest.mark.slow
FIVE_LINES = """
import asyncio
from clipper_stream.client import Client

async def main():
    async with Client("{bootstrap}") as client:
        print((await client.predict("sums", [0.5, 0.2, 0.9])).output)

asyncio.run(main())
"""


def built(folder: Path, at_s: float) -> Path:
    """The wheel that a copy of the project's files makes, which were written at this time."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/")):
            copy = folder / "project" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
            os.utime(copy, (at_s, at_s))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=folder / "project", check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> list[Path]:
    return [built(tmp_path_factory.mktemp("build"), at_s) for at_s in (1e9, 1.5e9)]


def test_two_builds_are_the_same_bytes(wheels):
    one, other = wheels
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_it_serves_where_there_is_no_repository(wheels, tmp_path):
    """With the dependencies of this environment, without its links to the repository."""
    place = tmp_path / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, "--prefix", str(place), "--ignore-installed", str(wheels[0])], check=True)
    python, program = place / "bin/python", place / "bin/clipper-stream"
    if not program.exists():
        pytest.fail(f"no program: {[*(place / 'bin').iterdir()]}")
    where = subprocess.run(
        [python, "-c", "import clipper_agents, clipper_gateway; print(clipper_agents.__file__)"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    assert Path(where).is_relative_to(place)
    subprocess.run([program, "init", "mine"], cwd=tmp_path, check=True, capture_output=True)
    with Program("up", folder=tmp_path / "mine", environ=environment(), through=[str(python)]) as up:
        bootstrap = up.ready()["bootstrap"]
        asked = [program, "predict", "sums", "[0.5, 0.2, 0.9]", "--bootstrap", bootstrap]
        found = subprocess.run(asked, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True, env=environment())
        assert json.loads(found.stdout)["output"] == 1
        lines = FIVE_LINES.format(bootstrap=bootstrap)
        found = subprocess.run([python, "-c", lines], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
        assert found.stdout == "1\n"
        up.signal(signal.SIGTERM)
        assert up.ended() == 0
