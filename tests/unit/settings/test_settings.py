"""Where a setting comes from, and what is said about one that cannot be used."""

from pathlib import Path

import msgspec
import pytest

from clipper_agents.settings import KafkaSection, Settings, load_settings
from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_stream.models.runtimes.model_files import FileRules
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ModelManifest

DIGITS = """
[[model]]
name = "svm"
runtime = "sklearn"
uri = "models/svm.skops"
input = {shape = [64]}

[[application]]
name = "digits"
models = ["svm:1"]
input = {shape = [64]}
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "clipper.toml"
        path.write_text(text)
        return path

    return write


def refused(path, environ=(), overrides=()):
    with pytest.raises(InvalidSetting) as caught:
        load_settings(path, dict(environ), dict(overrides))
    return str(caught.value)


def test_without_a_file_every_setting_has_its_default():
    settings = load_settings(None, {})
    assert settings == Settings()
    assert settings.catalogue.queries == "clipper.queries"
    assert settings.forgets


def test_command_line_beats_environment_beats_file_beats_default(written):
    path = written("[router]\nmax_in_flight = 1\nhorizon_s = 1\nprocesses = 1\n")
    environ = {"CLIPPER_ROUTER_MAX_IN_FLIGHT": "2", "CLIPPER_ROUTER_HORIZON_S": "2"}
    router = load_settings(path, environ, {"router.max_in_flight": "3"}).router
    assert (router.max_in_flight, router.horizon_s, router.processes, router.cache_mib) == (3, 2.0, 1, 32.0)


def test_the_password_comes_from_the_environment_only(written):
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:9093",
        "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
        "KAFKA_SASL_USERNAME": "ada",
        "KAFKA_SASL_PASSWORD": "secret",
        "KAFKA_SSL_CAFILE": "",
    }
    settings = load_settings(written('[kafka]\nbootstrap = "localhost:1"'), environ)
    assert settings.connection(environ) == KafkaConnection(
        "kafka:9093", security_protocol="SASL_SSL", username="ada", password="secret"
    )
    assert "secret" not in repr(settings)
    assert "KAFKA_SASL_PASSWORD" in refused(written('[kafka]\npassword = "secret"'))


def test_a_connection_that_cannot_work_is_refused_as_a_setting(written):
    with pytest.raises(InvalidSetting, match="--bootstrap"):
        load_settings(None, {}).connection({})
    settings = load_settings(None, {}, {"kafka.bootstrap": "a:1", "kafka.username": "ada"})
    with pytest.raises(InvalidSetting, match="KAFKA_SASL_PASSWORD"):
        settings.connection({})


def test_settings_written_as_json_are_read_back_equal(written, tmp_path):
    settings = load_settings(written(DIGITS), {}, {"kafka.bootstrap": "localhost:1"})
    copy = tmp_path / "settings.json"
    copy.write_bytes(msgspec.json.encode(settings))
    assert load_settings(copy, {}) == settings


def test_a_model_file_is_found_beside_the_configuration(written, tmp_path):
    settings = load_settings(written(DIGITS), {})
    assert settings.models[0].uri == str(tmp_path / "models" / "svm.skops")
    assert load_settings(written(DIGITS.replace('"models/', '"s3://models/')), {}).models[0].uri.startswith("s3://")


def test_a_worker_gets_plain_values_and_a_folder_of_its_own():
    settings = load_settings(None, {}, {"kafka.bootstrap": "a:1", "router.cache_mib": "0.5", "host.data_dir": "/x"})
    kafka = settings.connection({})
    router = settings.router_settings("router-1", kafka)
    assert (router.cache_bytes, router.data_dir, router.kafka.bootstrap) == (
        524288,
        Path("data/router/router-1"),
        "a:1",
    )
    other = Settings(kafka=KafkaSection(prefix="staging"))
    assert other.router_settings("router-1", kafka).data_dir == Path("data/staging/router/router-1")
    assert other.host_data_dir("svm.1.0") == Path("data/staging/host/svm.1.0")
    assert settings.gateway_settings("gateway", kafka).console_dir == Path("data/gateway/gateway")
    assert other.gateway_settings("second", kafka).console_dir == Path("data/staging/gateway/second")
    host = settings.host_settings("svm.1.0", ModelManifest(name="svm", uri="m:f"), kafka)
    assert host.data_dir == Path("/x/svm.1.0")


def test_a_gateway_gets_its_section_with_files_beside_the_configuration(written, tmp_path):
    path = written('[gateway]\nkeys_file = "keys.json"\ntls_certfile = "/c"\ntls_keyfile = "k"\nreports_dir = "r"')
    settings = load_settings(path, {"CLIPPER_GATEWAY_CORS_ORIGINS": "https://a, https://b"}, {"kafka.bootstrap": "a:1"})
    gateway = settings.gateway_settings("gateway-b", settings.connection({}))
    files = gateway.section.keys_file, gateway.section.tls_certfile, gateway.section.tls_keyfile
    assert files == (str(tmp_path / "keys.json"), "/c", str(tmp_path / "k"))
    assert gateway.section.reports_dir == str(tmp_path / "r")
    assert gateway.section.cors_origins == ["https://a", "https://b"]
    assert (gateway.instance, gateway.horizon_s) == ("gateway-b", 3600.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[router]\nproceses = 2", "router.proceses: there is no such key; known: processes, data_dir"),
        (
            "[ruoter]",
            "ruoter: there is no such key; known: kafka, broker, router, host, steward, gateway, supervisor, models,",
        ),
        ('[router]\nprocesses = "two"', "router.processes = 'two': expected int, got str"),
        ("[kafka]\npartitions = 0", "kafka.partitions = 0: expected int >= 1"),
        ("[router]\nprocesses = 5", "router.processes = 5: at most kafka.partitions = 4"),
        ('[[model]]\nname = "a"\nuri = "m:f"\nbatch = {limit = "x"}', "batch.limit = 'x'"),
        ('[[model]]\nname = "a"\nuri = "m:f"\nbatch = {limit = "x"}', "use one of aimd, fixed, quantile"),
        ('[[model]]\nname = "a_b"\nuri = "m:f"', "name = 'a_b': expected str of lower case letters, digits and dashes"),
        (
            '[[model]]\nname = "a"\nversion = "1.0"\nuri = "m:f"',
            "version = '1.0': expected str of letters, digits and dashes",
        ),
        ('[[model]]\nname = "a"\nuri = "m:f"\nreplicas = 0', "replicas = 0: expected int >= 1"),
        ('[[model]]\nname = "a"\nuri = "m:f"\nsha256 = "12"', "sha256 = '12': expected str matching"),
        ('[[application]]\nname = "a"\nmodels = ["b"]', "models[0] = 'b': expected str of the form name:version"),
        ('[[application]]\nname = "a"\nmodels = []', "models is empty"),
        ('[[application]]\nname = "a"\nmodels = ["b:1"]', "model 'b:1' is not declared"),
        (
            '[[application]]\nname = "a"\nmodels = ["b:1"]\naudit_ratio = 2.0',
            "audit_ratio = 2.0: expected float <= 1.0",
        ),
        ('[[application]]\nname = "a"\nmodels = ["b:1"]\nobjective_ms = 0', "objective_ms = 0: expected int >= 1"),
        (DIGITS.replace('"sklearn"', '"pickle"'), "model 'svm:1': runtime 'pickle': use one of python, sklearn"),
        (DIGITS + 'policy = {name = "best"}', "application 'digits': policy 'best': use one of epsilon_greedy, exp3"),
        (DIGITS + "policy = {parameters = {eta = -1.0}}", "application 'digits': "),
        (DIGITS + DIGITS, "application 'digits' is given 2 times"),
        (DIGITS.replace("[64]", "[8]", 1), "takes input float32[8], the application takes float32[64]"),
        ('[[model]]\nname = "a"\nuri = "m:f"\nreplicas = 1000000000', "replicas = 1000000000: expected int <= 256"),
        (DIGITS.replace("[64]", "[4096, 4096]"), "a row has at most 1048576"),
        ('[models]\nallowed_modules = ["acme"]\n' + DIGITS, "model 'svm:1': model file "),
        ('[models]\nallowed_modules = ["acme"]\n' + DIGITS, "svm.skops' to [models] allowed_locations of the process"),
        (
            '[models]\nallowed_modules = ["acme"]\n[[model]]\nname = "a"\nuri = "os:system"',
            "is outside of what this process may load (acme): if you trust it, add 'os' to [models] allowed_modules of",
        ),
        (
            '[models]\nallowed = ["acme"]',
            "models.allowed: there is no such key; known: allowed_modules, allowed_locations",
        ),
        ('[models]\nallowed_modules = ["models/"]', "'models/' is no module: put it into models.allowed_locations"),
        ('[[model]]\nname = "a"\nuri = "m:_f"', "_f is a private name"),
        ('[models]\nallowed_modules = "acme"', "models.allowed_modules = 'acme': expected array | null"),
        ('[router]\ndata_dir = "x"', "give broker.data_dir (or kafka.bootstrap) as well"),
        ('[gateway]\nconsole_dir = "x"', "gateway.console_dir outlive the temporary embedded broker"),
        ("router =", "not toml"),
        ("[gateway]\nport = 70000", "gateway.port = 70000: expected int <= 65535"),
        ('[gateway]\ntls_keyfile = "k"', "gateway.tls_keyfile is given without gateway.tls_certfile"),
        ('[gateway]\noidc_issuer = "https://a"', "gateway.oidc_issuer is given without gateway.oidc_audience"),
        ('[gateway]\noidc_jwks_url = "https://a"', "gateway.oidc_jwks_url is given without gateway.oidc_issuer"),
        ("[gateway]\nport = 8081", "gateway.port = gateway.grpc_port = 8081"),
    ],
)
def test_a_bad_configuration_is_refused_with_place_value_and_what_is_allowed(written, text, said):
    path = written(text)
    message = refused(path)
    assert said in message
    assert message.startswith(str(path))


def test_a_missing_file_is_named(tmp_path):
    assert "No such file" in refused(tmp_path / "none.toml")


def test_a_misspelt_variable_or_option_is_named():
    assert "CLIPPER_ROUTER_PROCESES: [router] has no key" in refused(None, {"CLIPPER_ROUTER_PROCESES": "2"})
    assert "CLIPPER_ROUTER_PROCESSES='two'" in refused(None, {"CLIPPER_ROUTER_PROCESSES": "two"})
    assert "write section.key" in refused(None, overrides={"processes": "2"})


def test_none_stands_for_the_null_that_toml_has_not(written, tmp_path):
    settings = load_settings(written(DIGITS + 'objective_ms = "none"\n'), {})
    assert settings.applications[0].objective_ms is None
    copy = tmp_path / "settings.json"
    copy.write_bytes(msgspec.json.encode(settings))
    assert load_settings(copy, {}) == settings
    assert "objective_ms = 'never': expected int | null" in refused(written(DIGITS + 'objective_ms = "never"\n'))


def test_a_declared_model_is_found_by_its_reference():
    models = [ModelManifest(name=name, version=version, uri="m:f") for name, version in ("a1", "a2")]
    settings = Settings(models=models)
    assert settings.model("a:2") is models[1]
    with pytest.raises(UnknownName, match="declared: a:1, a:2"):
        settings.model("a")


def test_a_model_without_a_runtime_has_the_one_that_its_uri_tells(written):
    assert load_settings(written(DIGITS.replace('runtime = "sklearn"', "")), {}).models[0].runtime == "sklearn"
    assert load_settings(written('[[model]]\nname = "a"\nuri = "acme.models:f"'), {}).models[0].runtime == "python"


@pytest.mark.parametrize(("other", "has"), [("[64]", [64]), ("[8]", None)])
def test_a_model_whose_row_is_not_stated_has_that_of_the_applications(written, other, has):
    named = "".join(
        f'[[application]]\nname = "{name}"\nmodels = ["m:1"]\ninput = {{shape = {shape}}}\n'
        for name, shape in (("a", "[64]"), ("b", other))
    )
    text = named + '[[model]]\nname = "m"\nuri = "acme.models:f"'
    if has is None:
        with pytest.raises(InvalidSetting, match="takes input float32, the application takes"):
            load_settings(written(text), {})
    else:
        assert load_settings(written(text), {}).models[0].input.shape == has


def test_a_process_may_load_exactly_what_its_own_configuration_declares(written, tmp_path):
    trusted = 'parameters = {trusted = ["acme.features.Scaler"]}\n'
    python = '[[model]]\nname = "a"\nuri = "acme.models:f"\n'
    settings = load_settings(written(python + DIGITS.replace("input", trusted + "input", 1)), {})
    allowed = ("acme.models:", str(tmp_path / "models/svm.skops"), "acme.features.Scaler")
    assert settings.allowed == allowed
    assert settings.router_settings("r", KafkaConnection("a:1")).allowed == allowed
    assert load_settings(None, {}).allowed == ()


def test_a_url_is_declared_and_allowed_as_it_is_written_and_is_no_path(written):
    url = "http://models:8080/v2/models/digits"
    model = f'[[model]]\nname = "a"\nruntime = "oip"\nuri = "{url}"\n'
    settings = load_settings(written(model), {})
    assert settings.models[0].uri == url
    assert settings.allowed == (url,)
    said = load_settings(written('[models]\nallowed_locations = ["http://models:8080"]\n' + model), {})
    assert said.allowed == ("http://models:8080",)
    with pytest.raises(InvalidSetting, match="outside of what this process may load"):
        load_settings(written('[models]\nallowed_locations = ["http://other:8080"]\n' + model), {})


def test_what_is_said_to_be_allowed_is_all_that_is(written, tmp_path):
    said = '[models]\nallowed_modules = ["models"]\nallowed_locations = ["models", "/srv/models"]\n'
    settings = load_settings(written(said + DIGITS), {})
    assert settings.allowed == ("models", str(tmp_path / "models"), "/srv/models")
    environ = {"CLIPPER_MODELS_ALLOWED_MODULES": "acme, shop", "CLIPPER_MODELS_ALLOWED_LOCATIONS": "models, /srv"}
    assert load_settings(None, environ).allowed == ("acme", "shop", str(Path("models").resolve()), "/srv")
    assert load_settings(None, {}, {"models.allowed_modules": "acme"}).allowed == ("acme",)
    assert load_settings(written("[models]\nallowed_modules = []"), {}).allowed == ()


PICKLED = DIGITS.replace('"sklearn"', '"joblib"')


def test_a_model_that_is_unpickled_is_refused_unless_the_operator_permits_it(written):
    message = refused(written(PICKLED))
    assert "model 'svm:1'" in message
    assert "set [models] unpickle = true" in message
    assert load_settings(written("[models]\nunpickle = true\n" + PICKLED), {}).files == FileRules(unpickle=True)
    settings = load_settings(written(PICKLED), {"CLIPPER_MODELS_UNPICKLE": "true"})
    assert settings.host_settings("h", settings.models[0], KafkaConnection("a:1")).files.unpickle
    assert settings.router_settings("r", KafkaConnection("a:1")).files.unpickle
    assert not load_settings(None, {}).files.unpickle


def test_model_files_from_elsewhere_are_kept_relative_to_the_configuration(written, tmp_path):
    settings = load_settings(written('[models]\ncache_dir = "kept"\n'), {})
    assert settings.files.cache_dir == str(tmp_path / "kept")
    assert load_settings(None, {}).files.cache_dir is None


def test_a_model_elsewhere_is_allowed_by_its_uri_and_by_nothing_more(written):
    elsewhere = DIGITS.replace("models/svm.skops", "s3://acme/svm.skops")
    assert load_settings(written(elsewhere), {}).allowed == ("s3://acme/svm.skops",)
    said = '[models]\nallowed_locations = ["s3://acme", "/srv"]\n'
    assert load_settings(written(said + elsewhere), {}).allowed == ("s3://acme", "/srv")
    assert "is outside of what this process may load" in refused(written(said.replace("acme", "other") + elsewhere))


def test_the_function_that_prepares_rows_is_allowed_where_it_is_declared(written, tmp_path):
    onnx = DIGITS.replace('"sklearn"', '"onnx"').replace("input", 'parameters = {prepare = "acme.rows:both"}\ninput', 1)
    assert load_settings(written(onnx), {}).allowed == (str(tmp_path / "models/svm.skops"), "acme.rows:")
    said = f'[models]\nallowed_locations = ["{tmp_path}"]\n'
    assert "'acme.rows:both' is outside" in refused(written(said + onnx))
