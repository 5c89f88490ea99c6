"""A deployment of a test's own, and the commands of its operator."""

import asyncio
import json
import sys

import pytest
from builders.router_deployment import Deployment
from e2e.programs import Done, environment_of

from clipper_agents import exits
from clipper_agents.cli import main as program


@pytest.fixture
def at(kafka, catalogue, tmp_path):
    return Deployment(kafka, catalogue, tmp_path)


class Shell:
    """Runs commands of one user in this process, against the topics of a test."""

    def __init__(self, folder, capsys):
        self.folder, self._capsys = folder, capsys

    def run(self, *arguments):
        """How a command ends, and what it prints."""
        self._capsys.readouterr()
        code = program.main([str(each) for each in arguments])
        out, err = self._capsys.readouterr()
        return Done(code, out, err.splitlines())

    def __call__(self, *arguments, code=exits.OK, said=""):
        """What a command prints, line by line; it ends with this code."""
        done = self.run(*arguments)
        assert done.code == code, done.err
        assert said in "\n".join(done.err)
        return done.out.splitlines()

    def json(self, *arguments):
        return [json.loads(line) for line in self(*arguments, "--json")]


@pytest.fixture
def shell(kafka, catalogue, tmp_path, monkeypatch, capsys):
    for name, value in environment_of(kafka, catalogue, LOGNAME="ada", COLUMNS="160").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


@pytest.fixture
def command(shell):
    """Runs a command beside this loop; the lines that it prints."""

    async def run(*arguments, **expected):
        return await asyncio.to_thread(shell, *arguments, **expected)

    return run
