"""The command lines, files and variables with which workers are started."""

import sys
from pathlib import Path

import msgspec
import pytest

from clipper_agents.settings import GatewaySection, load_settings
from clipper_agents.supervisor.workers import Workers
from clipper_agents.threads import ONE_THREAD
from clipper_stream.errors import InvalidSetting
from clipper_stream.models.runtimes.model_files import FileRules
from clipper_topics.manifests import ModelManifest

ENVIRON = {
    "PATH": "/bin",
    "KAFKA_BOOTSTRAP_SERVERS": "elsewhere:1",
    "KAFKA_SASL_PASSWORD": "secret",
    "CLIPPER_ROUTER_PROCESSES": "1",
    "CLIPPER_LOG_LEVEL": "debug",
}
OVERRIDES = {"kafka.bootstrap": "here:1", "kafka.username": "ada", "kafka.security_protocol": "SASL_SSL"}


@pytest.fixture
def workers(tmp_path):
    def make(**overrides):
        given = {name.replace("__", "."): value for name, value in overrides.items()}
        return Workers(load_settings(None, {}, {**OVERRIDES, **given}), tmp_path, ENVIRON)

    return make


def test_a_worker_reads_the_resolved_settings_whatever_the_environment_says(workers):
    (spec,) = workers().routers()
    assert spec.command[:6] == (sys.executable, "-P", "-m", "clipper_agents.cli.main", "worker", "router")
    config = spec.command[spec.command.index("--config") + 1]
    settings = load_settings(Path(config), spec.environment)
    assert settings.connection(spec.environment).bootstrap == "here:1"
    assert settings.connection(spec.environment).password == "secret"
    assert set(spec.environment) == {"PATH", "KAFKA_SASL_PASSWORD", "CLIPPER_LOG_LEVEL", *ONE_THREAD}


def test_numeric_libraries_keep_to_one_thread_unless_told_otherwise(workers, tmp_path):
    (spec,) = workers().routers()
    assert spec.environment["OMP_NUM_THREADS"] == "1"
    settings = load_settings(None, {}, OVERRIDES)
    (spec,) = Workers(settings, tmp_path, {"OMP_NUM_THREADS": "4"}).routers()
    assert spec.environment["OMP_NUM_THREADS"] == "4"


def test_the_password_is_in_no_file_and_on_no_command_line(workers, tmp_path):
    made = workers()
    specs = [*made.routers(), *made.hosts(ModelManifest(name="svm", uri="m:f"))]
    assert not any("secret" in word for spec in specs for word in spec.command)
    assert not any("secret" in file.read_text() for file in tmp_path.iterdir())


def test_each_replica_has_a_host_with_a_stable_name_and_a_colocated_model_has_none(workers):
    hosts = workers().hosts(ModelManifest(name="svm", version="2", uri="m:f", replicas=2))
    assert [host.name for host in hosts] == ["host.svm.2.0", "host.svm.2.1"]
    assert "svm:2" in hosts[0].command
    assert workers().hosts(ModelManifest(name="svm", uri="m:f", colocated=True)) == []


def test_a_metrics_port_is_the_first_of_a_row_of_ports(workers):
    made = workers(router__processes="2", router__metrics_port="9100", host__metrics_port="9200")
    models = [ModelManifest(name=name, uri="m:f") for name in ("a", "b")]
    words = [spec.command for spec in [*made.routers(), *(host for model in models for host in made.hosts(model))]]
    ports = [word.rpartition("=")[2] for command in words for word in command if ".metrics_port=" in word]
    assert ports == ["9100", "9101", "9200", "9201"]


def test_without_a_metrics_port_every_worker_takes_a_free_one(workers):
    specs = workers(router__processes="2").routers()
    assert all("router.metrics_port=0" in spec.command for spec in specs)


def test_a_worker_may_load_what_the_operators_file_says_only(tmp_path):
    declared = ModelManifest(name="mine", uri="acme.models:f")
    operators = msgspec.structs.replace(load_settings(None, {}, OVERRIDES), models=[declared])
    made = Workers(operators, tmp_path, ENVIRON)
    for spec in (*made.routers(), *made.hosts(declared)):
        assert load_settings(Path(spec.command[spec.command.index("--config") + 1]), {}).allowed == ("acme.models:",)
    (spec,) = made.hosts(ModelManifest(name="theirs", uri="os:system"))
    with pytest.raises(InvalidSetting, match="model 'os:system' is outside"):
        load_settings(Path(spec.command[spec.command.index("--config") + 1]), {})
    nothing = Workers(load_settings(None, {}, OVERRIDES), tmp_path, ENVIRON).routers()[0]
    assert load_settings(Path(nothing.command[nothing.command.index("--config") + 1]), {}).allowed == ()


def test_a_worker_may_unpickle_and_keeps_files_where_the_operators_file_says(tmp_path):
    for unpickle in (True, False):
        loading = {"models.unpickle": str(unpickle).lower(), "models.cache_dir": str(tmp_path / "kept")}
        made = Workers(load_settings(None, {}, {**OVERRIDES, **loading}), tmp_path, ENVIRON)
        assert made.files == FileRules(unpickle=unpickle, cache_dir=str(tmp_path / "kept"))
        (spec,) = made.routers()
        assert load_settings(Path(spec.command[spec.command.index("--config") + 1]), {}).files == made.files


def test_a_steward_is_started_unless_it_is_not_wanted(workers):
    (spec,) = workers(steward__metrics_port="9300").stewards()
    assert spec.name == "steward"
    assert spec.command[4:6] == ("worker", "steward")
    assert "steward.metrics_port=9300" in spec.command
    assert workers(steward__enabled="false").stewards() == []


def test_a_gateway_is_started_unless_it_is_not_wanted(workers):
    pytest.importorskip("grpc")
    (spec,) = workers(gateway__port="0", gateway__drain_s="3").gateways()
    assert spec.name == "gateway"
    assert spec.command[4] == "gateway"
    assert "--ends-with-stdin" in spec.command
    settings = load_settings(Path(spec.command[spec.command.index("--config") + 1]), {})
    assert settings.gateway == GatewaySection(port=0, drain_s=3.0)
    assert spec.drain_s > settings.gateway.drain_s, "it is killed only after its own end of patience"
    assert workers(gateway__enabled="false").gateways() == []


def test_without_its_libraries_there_is_no_gateway_and_it_says_what_to_install(workers, caplog):
    with caplog.at_level("INFO"):
        assert workers().gateways(["no_such_library"]) == []
    (said,) = caplog.records
    assert said.fields == {"missing": "no_such_library", "remedy": "pip install 'clipper-stream[gateway]'"}


def test_a_retired_model_has_no_hosts(workers):
    assert workers().hosts(ModelManifest(name="svm", uri="m:f", replicas=2, retired=True)) == []


def test_a_host_gone_for_good_gives_its_port_back_and_loses_its_folder(workers, tmp_path):
    made = workers(host__metrics_port="9200", host__data_dir=str(tmp_path / "hosts"))

    def port(name):
        (spec,) = made.hosts(ModelManifest(name=name, uri="m:f"))
        return spec.command[spec.command.index("--set") + 1].rpartition("=")[2]

    assert [port(name) for name in ("a", "b", "a")] == ["9200", "9201", "9200"]
    (tmp_path / "hosts/host.a.1.0/model").mkdir(parents=True)
    made.forget("host.a.1.0")
    made.forget("host.a.1.0")
    made.forget_model(ModelManifest(name="a", uri="m:f"))
    assert [*(tmp_path / "hosts").iterdir()] == []
    assert [path.name for path in tmp_path.glob("*.json")] == ["host.b.1.json"]
    assert port("c") == "9200"


def test_a_host_has_as_many_threads_as_its_model_has_cores(workers, tmp_path):
    model = ModelManifest(name="svm", uri="m:f", cpus=1.5)
    (spec,) = workers().hosts(model)
    assert {spec.environment[name] for name in ONE_THREAD} == {"2"}
    (spec,) = Workers(load_settings(None, {}, OVERRIDES), tmp_path, {"OMP_NUM_THREADS": "4"}).hosts(model)
    assert (spec.environment["OMP_NUM_THREADS"], spec.environment["MKL_NUM_THREADS"]) == ("4", "2")
