"""Virtual environments of the rivals, made on first use from pinned requirements, apart from ours."""

import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

RIVALS = Path(__file__).resolve().parent.parent / "rivals"
INSTALL_S = 400.0


class NotInstalled(RuntimeError):
    """The environment could not be made; the end of pip's own words says why."""


def rival_python(package: str, suffix: str = "", *, install: bool = True) -> Path:
    """The interpreter of `rivals/.venv{suffix}`, made or brought up to date from `requirements{suffix}.txt`.

    Without that environment and without installing it is our own interpreter, where it has the rival's package: good
    enough to see that the rival runs, not for figures, as versions differ.

    Args:
        package: What the rival imports.
        suffix: Empty, or `-mlserver`.
        install: False: only what is there already.

    Raises:
        NotInstalled: it is not there, and could not be made.
    """
    wanted = (RIVALS / f"requirements{suffix}.txt").read_text()
    folder = RIVALS / f".venv{suffix}"
    installed = folder / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted:
        if not install and find_spec(package) is not None:
            return Path(sys.executable)
        if not install:
            raise NotInstalled(f"{package} is not installed here, nor in {folder.name}: run without --no-install")
        print(f"installing {folder.name} (once) ...", file=sys.stderr, flush=True)
        _install(folder, RIVALS / f"requirements{suffix}.txt")
        installed.write_text(wanted)
    return folder / "bin" / "python"


def _install(folder: Path, requirements: Path) -> None:
    venv.create(folder, with_pip=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"pip did not end within {INSTALL_S:.0f} s") from error
    if done.returncode:
        raise NotInstalled(f"pip: {(done.stderr.strip().splitlines() or ['no words'])[-1]}")
