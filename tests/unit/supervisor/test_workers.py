import sys
from pathlib import Path

import msgspec
import pytest

from clipper_agents.settings import load_settings
from clipper_agents.settings.sections import GatewaySection
from clipper_agents.supervisor.workers import Workers
from clipper_agents.threads import ONE_THREAD
from clipper_stream.errors import InvalidSetting, install_command
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
    def make(environ=ENVIRON, models=(), **overrides):
        given = {name.replace("__", "."): value for name, value in overrides.items()}
        settings = msgspec.structs.replace(load_settings(None, {}, {**OVERRIDES, **given}), models=[*models])
        return Workers(settings, tmp_path, environ)

    return make


def svm(**fields):
    return ModelManifest(**{"name": "svm", "uri": "m:f"} | fields)


def settings_of(spec, environ=None):
    return load_settings(Path(spec.command[spec.command.index("--config") + 1]), environ or {})


def port_of(spec):
    (word,) = [word for word in spec.command if ".metrics_port=" in word]
    return word.rpartition("=")[2]


def test_a_worker_reads_the_resolved_settings_whatever_the_environment_says(workers, tmp_path):
    made = workers()
    (spec,) = made.routers()
    assert spec.command[:6] == (sys.executable, "-P", "-m", "clipper_agents.cli.main", "worker", "router")
    connection = settings_of(spec, spec.environment).connection(spec.environment)
    assert (connection.bootstrap, connection.password) == ("here:1", "secret")
    assert set(spec.environment) == {"PATH", "KAFKA_SASL_PASSWORD", "CLIPPER_LOG_LEVEL", *ONE_THREAD}
    assert not any("secret" in word for each in (spec, *made.hosts(svm())) for word in each.command)
    assert not any("secret" in file.read_text() for file in tmp_path.iterdir())


def test_numeric_libraries_have_a_thread_or_as_many_as_their_model_has_cores_unless_told_otherwise(workers):
    told = workers({"OMP_NUM_THREADS": "4"})
    model = svm(cpus=1.5)
    specs = [*workers().routers(), *told.routers(), *workers().hosts(model), *told.hosts(model)]
    threads = [(spec.environment["OMP_NUM_THREADS"], spec.environment["MKL_NUM_THREADS"]) for spec in specs]
    assert threads == [("1", "1"), ("4", "1"), ("2", "2"), ("4", "2")]
    assert {specs[2].environment[name] for name in ONE_THREAD} == {"2"}


def test_each_replica_has_a_host_with_a_stable_name_and_a_colocated_or_retired_model_has_none(workers):
    hosts = workers().hosts(svm(version="2", replicas=2))
    assert [host.name for host in hosts] == ["host.svm.2.0", "host.svm.2.1"]
    assert "svm:2" in hosts[0].command
    for without in ({"colocated": True}, {"replicas": 2, "retired": True}):
        assert workers().hosts(svm(**without)) == []


def test_a_metrics_port_is_the_first_of_a_row_of_ports_or_a_free_one(workers):
    made = workers(router__processes="2", router__metrics_port="9100", host__metrics_port="9200")
    specs = [*made.routers(), *made.hosts(svm(name="a")), *made.hosts(svm(name="b"))]
    assert [*map(port_of, specs)] == ["9100", "9101", "9200", "9201"]
    assert [*map(port_of, workers(router__processes="2").routers())] == ["0", "0"]


def test_a_worker_may_load_what_the_operators_file_says_only(workers):
    declared = svm(name="mine", uri="acme.models:f")
    made = workers(models=[declared])
    for spec in (*made.routers(), *made.hosts(declared)):
        assert settings_of(spec).allowed == ("acme.models:",)
    (spec,) = made.hosts(svm(uri="os:system"))
    with pytest.raises(InvalidSetting, match="model 'os:system' is outside"):
        settings_of(spec)
    assert settings_of(workers().routers()[0]).allowed == ()


@pytest.mark.parametrize("unpickle", [True, False])
def test_a_worker_may_unpickle_and_keeps_files_where_the_operators_file_says(workers, tmp_path, unpickle):
    kept = str(tmp_path / "kept")
    made = workers(models__unpickle=str(unpickle).lower(), models__cache_dir=kept)
    assert settings_of(made.routers()[0]).files == made.files == FileRules(unpickle=unpickle, cache_dir=kept)


def test_a_steward_is_started_unless_it_is_not_wanted(workers):
    (spec,) = workers(steward__metrics_port="9300").stewards()
    assert (spec.name, spec.command[4:6], port_of(spec)) == ("steward", ("worker", "steward"), "9300")
    assert workers(steward__enabled="false").stewards() == []


def test_a_gateway_is_started_unless_it_is_not_wanted(workers):
    (spec,) = workers(gateway__port="0", gateway__drain_s="3").gateways()
    assert (spec.name, spec.command[4]) == ("gateway", "gateway")
    assert "--ends-with-stdin" in spec.command
    assert settings_of(spec).gateway == GatewaySection(port=0, drain_s=3.0)
    assert spec.drain_s > 3.0, "it is killed only after its own end of patience"
    assert workers(gateway__enabled="false").gateways() == []


def test_several_gateways_share_their_settings(workers):
    shared = {"gateway__processes": "3", "gateway__console": "false"}
    specs = workers(**shared, gateway__metrics_port="9400").gateways()
    assert [(spec.name, port_of(spec)) for spec in specs] == [
        ("gateway", "9400"),
        ("gateway-1", "9401"),
        ("gateway-2", "9402"),
    ]
    assert all(settings_of(spec) == settings_of(specs[0]) for spec in specs)


def test_without_its_libraries_there_is_no_gateway_and_it_says_what_to_install(workers, caplog):
    with caplog.at_level("INFO"):
        assert workers().gateways(["no_such_library"]) == []
    (said,) = caplog.records
    assert said.fields == {"missing": "no_such_library", "remedy": install_command("gateway")}


def test_a_host_gone_for_good_gives_its_port_back_and_loses_its_folder(workers, tmp_path):
    made = workers(host__metrics_port="9200", host__data_dir=str(tmp_path / "hosts"))
    ports = [port_of(*made.hosts(svm(name=name))) for name in ("a", "b", "a")]
    (tmp_path / "hosts/host.a.1.0/model").mkdir(parents=True)
    for _ in range(2):
        made.forget("host.a.1.0")
    made.forget_model(svm(name="a"))
    assert [*(tmp_path / "hosts").iterdir()] == []
    assert [path.name for path in tmp_path.glob("*.json")] == ["host.b.1.json"]
    assert [*ports, port_of(*made.hosts(svm(name="c")))] == ["9200", "9201", "9200", "9200"]
