"""Who makes an AOT cache, and what is left of one that is not finished?"""

import fcntl
import os
from pathlib import Path

import pytest
from builders.greetings import is_gone
from e2e.programs import until

from clipper_agents.broker.aot_cache import AotCacheProcess
from clipper_agents.broker.runtime import KafkaRuntime, aot_cache_file


def a_java(folder: Path, version: str) -> Path:
    """A Java that says in `pid` who it is, and then does not end."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho $$ > {folder}/pid.new\nmv {folder}/pid.new {folder}/pid\nexec sleep 600\n")
    java.chmod(0o755)
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return java


@pytest.mark.parametrize("version", ["17.0.15", "21", "23.0.1"])
def test_a_java_that_knows_no_cache_is_not_given_any(tmp_path: Path, version: str):
    java = a_java(tmp_path, version)
    assert aot_cache_file(java, [], tmp_path) is None
    assert AotCacheProcess.start(KafkaRuntime(java, ())) is None
    (tmp_path / "release").unlink()
    assert aot_cache_file(java, [], tmp_path) is None


def test_a_cache_has_another_name_with_another_java_or_other_jars(tmp_path: Path):
    jar, names = tmp_path / "kafka.jar", []
    for version, content, changed_ns, place in [
        ("25.0.2", "one", 1, "."),
        ("25.0.3", "one", 1, "."),
        ("25.0.3", "one", 2, "."),
        ("25.0.3", "two and three", 2, "."),
        ("25.0.3", "two and three", 2, "elsewhere"),
    ]:
        jar.write_text(content)
        os.utime(jar, ns=(1, changed_ns))
        names.append(aot_cache_file(a_java(tmp_path / place, version), [jar], tmp_path))
    assert [names.index(name) for name in names] == [0, 1, 2, 3, 3], "a Java that only lies elsewhere takes the same"


def test_a_cache_that_exists_is_used_and_not_made_again(tmp_path: Path):
    runtime = KafkaRuntime(tmp_path / "java", (Path("/a.jar"),), tmp_path / "kafka.aot")
    assert runtime.command(["-Xmx1m"], "kafka.Kafka") == [str(runtime.java), "-Xmx1m", "-cp", "/a.jar", "kafka.Kafka"]
    runtime.aot_cache.touch()
    assert f"-XX:AOTCache={runtime.aot_cache}" in runtime.command([], "kafka.Kafka")
    not_to_be_written = KafkaRuntime(tmp_path / "java", (), runtime.aot_cache / "kafka.aot")
    assert [AotCacheProcess.start(one) for one in (runtime, not_to_be_written)] == [None, None]


def test_one_process_makes_it_and_nothing_is_left_when_that_is_stopped(tmp_path: Path):
    runtime = KafkaRuntime(a_java(tmp_path, "25"), (), tmp_path / "kafka.aot")
    process = AotCacheProcess.start(runtime)
    assert process is not None
    until("it has started Java", (tmp_path / "pid").exists)
    assert AotCacheProcess.start(runtime) is None
    process.stop()
    until("its Java has ended", lambda: is_gone(int((tmp_path / "pid").read_text())))
    assert process.pid is None
    assert not process._folder.exists()
    with (tmp_path / "aot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
