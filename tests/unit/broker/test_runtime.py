"""Which Java and which jars does the embedded broker get, and what is said when there are none?"""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from clipper_agents.broker.data_dir import BrokerNotStarted
from clipper_agents.broker.runtime import KAFKA_VERSION, KafkaRuntime, find_java, kafka_jars
from clipper_stream.models.fetch import default_cache_dir


def a_jar(folder: Path, name: str) -> Path:
    jar = folder / name
    with zipfile.ZipFile(jar, "w") as content:
        content.writestr("META-INF/MANIFEST.MF", "")
    return jar


def failing(error: Exception) -> Callable[[], list[Path]]:
    def resolve() -> list[Path]:
        raise error

    return resolve


NEVER = failing(AssertionError("resolved although every jar is there"))


def test_jars_are_resolved_once_and_again_when_one_has_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    jars = [a_jar(tmp_path, "kafka.jar"), a_jar(tmp_path, "clients.jar")]
    assert kafka_jars(lambda: jars, tmp_path / "cache") == tuple(jars)
    assert capsys.readouterr().err == f"downloading Apache Kafka {KAFKA_VERSION} (46 jars, 45 MB), once ...\n"
    assert kafka_jars(NEVER, tmp_path / "cache") == tuple(jars)
    assert capsys.readouterr().err == ""
    jars[1].unlink()
    assert kafka_jars(lambda: [jars[0], a_jar(tmp_path, "clients.jar")], tmp_path / "cache") == tuple(jars)


def test_a_jar_that_was_cut_off_is_removed_and_downloaded_again(tmp_path: Path):
    jar = a_jar(tmp_path, "kafka.jar")
    whole = jar.read_bytes()
    jar.write_bytes(whole[:10])

    def resolve() -> list[Path]:  # as jgo: a file that exists is not downloaded
        if not jar.exists():
            jar.write_bytes(whole)
        return [jar]

    assert kafka_jars(resolve, tmp_path / "cache") == (jar,)
    assert jar.read_bytes() == whole


def test_a_failed_download_is_one_line_with_a_way_out(tmp_path: Path):
    error = ConnectionError("Max retries exceeded\nwith url " + "x" * 1000)
    with pytest.raises(
        BrokerNotStarted, match=r"Maven Central \(ConnectionError: Max.*KAFKA_BOOTSTRAP_SERVERS$"
    ) as told:
        kafka_jars(failing(error), tmp_path)
    assert KAFKA_VERSION in str(told.value)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400
    assert kafka_jars(lambda: [a_jar(tmp_path, "kafka.jar")], tmp_path)


def test_without_the_broker_extra_the_command_that_installs_it_is_said(tmp_path: Path):
    with pytest.raises(BrokerNotStarted, match=r"jgo is not installed: pip install .*\[broker\]'"):
        kafka_jars(failing(ModuleNotFoundError("No module named 'jgo'", name="jgo")), tmp_path)


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(BrokerNotStarted, match="file/cache: Not a directory; set XDG_CACHE_HOME"):
        kafka_jars(NEVER, tmp_path / "file" / "cache")


@pytest.mark.parametrize("is_set", [True, False])
def test_the_cache_follows_the_xdg_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_set: bool):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path) if is_set else "")
    assert default_cache_dir() == (tmp_path if is_set else Path.home() / ".cache") / "clipper-stream" / "models"


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("17.0.15", None), ("21", None), ("25.0.2", None),
        ("11.0.2", rf"Java 11, Kafka {KAFKA_VERSION} needs 17: pip install"),
        ("1.8.0_402", rf"Java 8, Kafka {KAFKA_VERSION} needs 17: pip install"),
        (None, r"no Java: pip install .* or put a Java 17 or later on PATH"),
    ],
)  # fmt: skip
def test_a_java_on_path_is_used_when_it_is_recent_enough(tmp_path: Path, version: str | None, refused: str | None):
    java = tmp_path / "java"
    if version is not None:
        java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
        java.chmod(0o755)
    assert find_java(tmp_path / "bundled", str(tmp_path)) == tmp_path / "bundled", "that one comes first"
    if refused is None:
        assert find_java(None, str(tmp_path)) == java
        return
    with pytest.raises(BrokerNotStarted, match=refused):
        find_java(None, str(tmp_path))


def test_the_command_line_names_the_jars_and_then_the_main_class():
    command = KafkaRuntime(Path("/j/java"), (Path("/a.jar"), Path("/b.jar"))).command(["-Xmx1m"], "kafka.Kafka", "c")
    assert command == ["/j/java", "-Xmx1m", "-cp", "/a.jar:/b.jar", "kafka.Kafka", "c"]
