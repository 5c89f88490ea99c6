"""Logs go to a file for the length of a block, and no handler keeps the file when it is closed."""

import logging
import os
import subprocess
import sys
import warnings

import pytest

from clipper_agents.observability.logging import log_file
from clipper_stream.errors import InvalidSetting

FIRST_FIGURE = """
import logging, os, sys
from pathlib import Path
from clipper_agents.observability.logging import log_file

logging.getLogger().addHandler(logging.NullHandler())  # as the program does
with log_file(Path(sys.argv[1]), "info", os.environ):
    pass
import matplotlib.font_manager
"""


def test_a_block_has_its_logs_and_warnings_in_the_file(tmp_path):
    with log_file(tmp_path / "log", None, {}) as lines:
        logging.getLogger("clipper").info("hello")
        warnings.warn("be careful", stacklevel=1)
        print("a line of a child", file=lines)
    first, second, *_, last = (tmp_path / "log").read_text().splitlines()
    assert first.endswith("level=info logger=clipper msg=hello")
    assert "be careful" in second
    assert last == "a line of a child"


def test_after_the_block_handlers_and_levels_are_those_of_before(tmp_path, capsys):
    root, noisy = logging.getLogger(), logging.getLogger("asyncio")
    handlers, levels = root.handlers[:], (root.level, noisy.level)
    with log_file(tmp_path / "log", "debug", {}) as lines:
        assert root.handlers != handlers
    assert lines.closed
    assert (root.handlers, (root.level, noisy.level)) == (handlers, levels)
    root.warning("nobody may write this to the closed file")
    assert "Logging error" not in capsys.readouterr().err


def test_an_unknown_level_leaves_the_handlers_alone(tmp_path):
    handlers = logging.getLogger().handlers[:]
    with pytest.raises(InvalidSetting, match="log level 'loud'"), log_file(tmp_path / "log", "loud", {}):
        pass
    assert logging.getLogger().handlers == handlers


def test_matplotlib_without_a_font_cache_logs_into_no_closed_file(tmp_path):
    pytest.importorskip("matplotlib")
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", FIRST_FIGURE, str(tmp_path / "log")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.glob("fontlist-*.json"))
