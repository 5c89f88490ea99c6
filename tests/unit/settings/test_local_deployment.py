"""Commands in a folder find the Kafka of the `up` that runs there, and nothing of one that has ended."""

import os
import shutil

import pytest

from clipper_agents.cli.deployment import DeploymentContext
from clipper_agents.settings.local_deployment import find_running, recorded
from clipper_agents.settings.sections import KafkaSection
from clipper_stream.errors import InvalidSetting

KAFKA = KafkaSection(bootstrap="127.0.0.1:4711", prefix="shop", partitions=2)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


TOML = '[kafka]\nbootstrap = "kafka:9092"\nprefix = "toml"\n'


def test_a_command_uses_the_up_of_its_folder_or_its_configuration_and_says_so(folder, capsys):
    with recorded(KAFKA.prefix) as tell:
        assert find_running() == {}, "it only starts"
        tell(KAFKA)
        assert DeploymentContext().settings.kafka == KAFKA
    assert capsys.readouterr().err == "using 127.0.0.1:4711, where `up` runs in this folder\n"
    assert DeploymentContext().settings.kafka == KafkaSection()
    (folder / "clipper.toml").write_text(TOML)
    assert DeploymentContext().settings.kafka == KafkaSection(bootstrap="kafka:9092", prefix="toml")
    assert capsys.readouterr().err == "using clipper.toml\n"
    (folder / "clipper.toml").write_text('[router]\nprocesses = 2\n[kafka]\nprefix = "toml"\n')
    with recorded(KAFKA.prefix) as tell:
        tell(KAFKA)
        settings = DeploymentContext().settings
    assert (settings.kafka, settings.router.processes) == (KAFKA, 2)


def test_an_address_that_is_given_is_used_as_before(folder, monkeypatch, capsys):
    (folder / "clipper.toml").write_text(TOML)
    with recorded(KAFKA.prefix) as tell:
        tell(KAFKA)
        assert DeploymentContext(bootstrap="a:1").settings.kafka == KafkaSection(bootstrap="a:1")
        assert DeploymentContext(starts_kafka=True).settings.kafka == KafkaSection()
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "b:1")
        assert DeploymentContext().settings.kafka == KafkaSection(bootstrap="b:1")
    assert capsys.readouterr().err == ""


def test_of_two_in_one_folder_the_second_is_refused_or_is_of_another_prefix_and_is_not_found(folder):
    with recorded(KAFKA.prefix) as tell:
        says = rf"runs in this folder already, as process {os.getpid()} since 20\d\d-.*: look at it by `clipper-stream"
        with pytest.raises(InvalidSetting, match=says), recorded(KAFKA.prefix):
            pass
        tell(KAFKA)
        with recorded("other") as second:
            second(KafkaSection(bootstrap="127.0.0.1:1"))
            assert find_running()["kafka.bootstrap"] == "127.0.0.1:4711"
        assert find_running()["kafka.bootstrap"] == "127.0.0.1:4711"
        (record,) = (folder / "cache").rglob("*.json")
        left = record.read_text()
    assert not record.exists()
    record.write_text(left)
    assert find_running() == {}, "it was killed"
    with recorded(KAFKA.prefix):
        pass
    shutil.rmtree(folder / "cache")
    (folder / "cache").write_text("no folder")
    with recorded(KAFKA.prefix) as tell:
        tell(KAFKA)
        assert find_running() == {}, "it could not be recorded"
