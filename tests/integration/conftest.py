"""A deployment of a test's own, and the commands of its operator."""

import asyncio

import pytest
from builders.router_deployment import Deployment
from e2e.programs import Shell, environment_of


@pytest.fixture
def at(kafka, catalogue, tmp_path):
    return Deployment(kafka, catalogue, tmp_path)


@pytest.fixture
def shell(kafka, catalogue, tmp_path, monkeypatch):
    environ = environment_of(kafka, catalogue, LOGNAME="ada", COLUMNS="160")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, environ)


@pytest.fixture
def command(shell):
    async def run(*arguments, **expected):
        return await asyncio.to_thread(shell, *arguments, **expected)

    return run
