"""What a terminal shows: `python docs/terminal_captures.py > docs/tutorial/what-a-terminal-shows.md`.

Everything on that page was printed by commands that ran while the page was made. A scene is kept when it shows what it
is about, so the page is the same from run to run but for its numbers.
"""

import os
import pty
import random
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from clipper_stream.client import SyncClient

PAGE = Path(__file__).parent / "tutorial/what-a-terminal-shows.md"
COMMAND = Path(sys.executable).with_name("clipper-stream")
WORTH = 2
COLUMNS, ROWS = 110, 60
PATIENCE_S = 240.0
"""For what a scene is about; an idle machine needs a tenth of it."""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NEW_FRAME = re.compile(r"(?:\x1b\[1A(?:\x1b\[2K)?|\x1b\[2K)+")
"""What rich writes to draw over the lines that it drew before."""

HEAD = """# What a terminal shows

<!-- Generated: python docs/terminal_captures.py > docs/tutorial/what-a-terminal-shows.md -->

Printed by commands that ran while this page was made, in one folder with a `clipper.toml` and the models in `shop.py`;
the words in the columns are explained in [status](../reference/status.md).
"""
MODELS = """# shop.py
def careful(baskets):
    return (baskets.sum(axis=1) > 2).astype(int)


def careless(baskets):
    return (baskets[:, :3].sum(axis=1) > 2).astype(int)


def raises(baskets):
    raise ValueError("no price list")
"""
CONFIGURATION = """[kafka]
partitions = 2

[[model]]
name = "careless"
uri = "shop:careless"

[[model]]
name = "raises"
uri = "shop:raises"

[[application]]
name = "worth"
input = { dtype = "float32", shape = [4] }
models = ["careless:1"]
objective_ms = 500
default_output = 0
rollout = { margin = 0.05, steps = [0.2, 0.5] }

[[application]]
name = "prices"
input = { dtype = "float32", shape = [4] }
models = ["raises:1"]
objective_ms = 500
default_output = 0
"""


@dataclass(frozen=True)
class Scene:
    """A command, and what it has to show.

    Attributes:
        title: Its heading on the page.
        said: What a reader should know before.
        arguments: Of `clipper-stream`.
        shows: Texts that must be there, in any order; until they are, the command is run again.
        code: With which it ends; None: it is ended when it shows them.
    """

    title: str
    said: str
    arguments: Sequence[str]
    shows: Sequence[str]
    code: int | None = 0

    @property
    def typed(self) -> str:
        """What is typed."""
        return shlex.join(["clipper-stream", *self.arguments])


DEPLOY = (
    "model", "deploy", "careful:1", "--uri", "shop:careful", "--application", "worth", "--stage", "canary",
    "--share", "0.2", "--automatic", "--wait", "60", "--why", "looks at all four prices",
)  # fmt: skip
UP = Scene(
    "Start",
    "A configuration with two applications: `worth`, whose model ignores the last of four prices, and `prices`, whose "
    "model raises an error.",
    ("up",),
    ("starting kafka", "ready bootstrap="),
    code=None,
)
SCENES = (
    Scene("A query", "", ("predict", "worth", "[0.2, 0.3, 0.4, 1.9]"), ('"default": false',)),
    Scene(
        "A model that fails",
        "`prices` has been asked for a while. Its answers are defaults, and `status` ends with code 1 and the reason.",
        ("status",),
        ("wrong: ", "raises:1 failed", "no price list"),
        code=1,
    ),
    Scene(
        "A canary",
        "A model that looks at all prices is to answer a fifth of the queries of `worth`.",
        DEPLOY,
        ("ready",),
    ),
    Scene(
        "A canary while it is watched",
        "`status --watch` on a terminal, until Ctrl-C.",
        ("status", "--watch", "--application", "worth"),
        ("trial careful:1",),
        code=None,
    ),
    Scene(
        "A canary's end",
        "Some hundred feedbacks later.",
        ("application", "history", "worth"),
        ("promote careful:1",),
    ),
    Scene(
        "No broker",
        "A command ends with code 3, and a worker waits.",
        ("status", "--bootstrap", "127.0.0.1:1"),
        ("127.0.0.1:1",),
        code=3,
    ),
    Scene(
        "A worker without a broker",
        "",
        ("worker", "router", "--instance", "router-b", "--bootstrap", "127.0.0.1:1"),
        ("trying again",),
        code=None,
    ),
)


class Terminal:
    """A command at a terminal of its own.

    Args:
        arguments: Of `clipper-stream`.
        folder: Where it runs.
    """

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self._terminal, other = pty.openpty()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "CLIPPER_"))}
        size = {"COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm", "USER": "ada", "NO_COLOR": "1"}
        # another pipeline of this machine may have its gateway at the port
        size["CLIPPER_GATEWAY_ENABLED"] = "false"
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [COMMAND, *arguments], cwd=folder, env=kept | size, stdin=other, stdout=other, stderr=other
        )
        os.close(other)
        self._read = ""

    def look(self, wait_s: float) -> str:
        """Return all that stands there now, after at most so many seconds."""
        end_s = time.monotonic() + wait_s
        while (left_s := end_s - time.monotonic()) > 0 and select.select([self._terminal], [], [], left_s)[0]:
            try:
                self._read += os.read(self._terminal, 1 << 16).decode(errors="replace")
            except OSError:  # it has ended
                break
        text = NEW_FRAME.split(self._read)[-1].replace("\r\n", "\n").replace("\r", "\n")
        return "\n".join(line.rstrip() for line in CONTROL.sub("", text).splitlines()).strip("\n")

    def end(self) -> int:
        """End it as Ctrl-C does if it has not ended; returns its code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(60.0)
        finally:
            self.look(0.1)
            os.close(self._terminal)

    def until(self, found: Sequence[str] | None, end_s: float) -> str:
        """Wait until these texts stand there, or the command has ended; what stands there then."""
        while time.monotonic() < end_s:
            ended = self._process.poll() is not None
            seen = self.look(0.2)
            if ended or (found is not None and all(text in seen for text in found)):
                return seen
        return seen


def captured(scene: Scene, folder: Path) -> str:
    """Run a command until it shows what its scene is about; what stood there.

    Raises:
        SystemExit: it never did, or ended otherwise.
    """
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        terminal = Terminal(scene.arguments, folder)
        seen = terminal.until(scene.shows if scene.code is None else None, end_s)
        code = terminal.end()
        if all(text in seen for text in scene.shows) and code == (scene.code or 0):
            return seen
    raise SystemExit(f"{scene.title}: within {PATIENCE_S:.0f} s nothing showed {scene.shows}: {seen}")


@contextmanager
def traffic(bootstrap: str) -> Iterator[None]:
    """Baskets for both applications all the time, and what those of `worth` were worth."""
    ending = threading.Event()

    def send() -> None:
        draw = random.Random(7)  # noqa: S311 - a benchmark's own numbers
        with SyncClient(bootstrap) as client:
            while not ending.wait(0.02):
                basket = [draw.random() for _ in range(4)]
                client.feedback(client.predict("worth", basket), label=int(sum(basket) > WORTH))
                client.predict("prices", basket)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        ending.set()
        sending.join()


def scenes(folder: Path) -> Iterator[tuple[Scene, str]]:
    """Start a pipeline in a folder, and yield each scene with what its terminal showed."""
    (folder / "shop.py").write_text(MODELS)
    (folder / "clipper.toml").write_text(CONFIGURATION)
    up = Terminal(UP.arguments, folder)
    try:
        started = up.until(UP.shows, time.monotonic() + PATIENCE_S)
        yield UP, started
        ready = re.search(r"ready bootstrap=(\S+)", started)
        if ready is None:
            raise SystemExit(f"up has not started: {started}")
        with traffic(ready[1]):
            for scene in SCENES:
                yield scene, captured(scene, folder)
    finally:
        up.end()


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    with tempfile.TemporaryDirectory(prefix="captures-") as folder:
        for scene, seen in scenes(Path(folder)):
            said = f"{fill(scene.said, 120)}\n\n" if scene.said else ""
            shown = seen.replace(folder, "/srv/shop")
            parts.append(f"## {scene.title}\n\n{said}```\n$ {scene.typed}\n{shown}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
