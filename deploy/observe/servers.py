"""A Prometheus with the rules of this folder, on a free port."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from clipper_agents.broker.properties import free_port

HERE = Path(__file__).parent
BOARD, RULES, CONFIGURATION = HERE / "clipper-board.json", HERE / "alerts.yml", HERE / "prometheus.yml"
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\[|\boffset |\bfor: |\w+_interval: )(\d+)([smhd])\b")
LEAST_INTERVAL_S = 1.0
"""Between two scrapes or evaluations, however much faster all else is."""
READY_S = 60.0
MISSING = """there is no prometheus on the PATH. Install it:
  Debian, Ubuntu   apt install prometheus     (its own service at port 9090 is not needed here)
  macOS            brew install prometheus
  elsewhere        the prometheus binary of https://prometheus.io/download/, in a folder of the PATH"""

_open = build_opener(ProxyHandler({})).open


def faster(text: str, factor: float) -> str:
    """Rules or a configuration whose windows, offsets, waits and intervals are shorter by a factor.

    The expressions stay what they are, so that a test of seconds tells about rules of days.

    >>> faster("for: 5m  # rate(x[1h] offset 2d)", 60)
    'for: 5000ms  # rate(x[60000ms] offset 2880000ms)'
    >>> faster("scrape_interval: 15s", 60)
    'scrape_interval: 1000ms'
    """

    def shorter(found: re.Match[str]) -> str:
        least_s = LEAST_INTERVAL_S if "interval" in found[1] else 0.001
        return f"{found[1]}{max(least_s, int(found[2]) * UNITS_S[found[3]] / factor) * 1000:.0f}ms"

    return text if factor == 1 else DURATION.sub(shorter, text)


@contextmanager
def prometheus(folder: Path, targets: Path, factor: float = 1) -> Iterator[str]:
    """Run a Prometheus that scrapes these targets and evaluates the alert rules; gives its URL.

    Args:
        folder: An empty folder for its configuration and its data.
        targets: A file of `file_sd_configs`, as `up` writes it.
        factor: How many times shorter the windows of the rules are.

    Raises:
        SystemExit: there is no Prometheus, or it does not start.
    """
    binary = shutil.which("prometheus")
    if binary is None:
        raise SystemExit(f"error: {MISSING}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RULES.name).write_text(faster(RULES.read_text(), factor))
    configuration = CONFIGURATION.read_text().replace("data/metrics-targets.json", str(targets.resolve()))
    (folder / CONFIGURATION.name).write_text(faster(configuration, factor))
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        binary, f"--config.file={folder / CONFIGURATION.name}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}", "--enable-feature=exemplar-storage",
    ]  # fmt: skip
    with _running(command, folder / "prometheus.log", f"{url}/-/ready"):
        yield url


@contextmanager
def _running(command: Sequence[str], log: Path, ready_url: str) -> Iterator[None]:
    """Run a server until the end of the block; it answers at its URL before the block begins.

    It has a process group of its own: Ctrl-C in a terminal reaches this process alone, which ends the server.
    """
    with log.open("wb") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=lines, process_group=0)  # noqa: S603
    try:
        end_s = time.monotonic() + READY_S
        while not _answers(ready_url):
            if process.poll() is not None or time.monotonic() > end_s:
                raise SystemExit(f"error: {command[0]} does not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with _open(url, timeout=5) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 (OK)
    except (URLError, OSError):
        return False
