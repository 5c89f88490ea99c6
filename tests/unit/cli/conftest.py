"""The program in this process, in a folder without settings."""

import pytest

from clipper_agents.cli import main


@pytest.fixture(autouse=True)
def _in_a_folder_without_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("CLIPPER_GATEWAY_KEYS_FILE", raising=False)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ran(capsys):
    def run(*arguments, **replaced):
        code = main.main([*map(str, arguments)], **replaced)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
