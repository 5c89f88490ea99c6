"""Where a setting comes from, and what is said about one that cannot be used."""

from pathlib import Path

import msgspec
import pytest

from clipper_agents.settings import Settings, load_settings
from clipper_agents.settings.sections import KafkaSection
from clipper_stream.errors import InvalidSetting
from clipper_stream.models.runtimes.model_files import FileRules
from clipper_topics.connection import InvalidConnection, KafkaConnection

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
def loaded(tmp_path):
    """Settings of a file with this text, or of none."""

    def load(text=None, environ=(), overrides=()):
        path = tmp_path / "clipper.toml"
        if text is not None:
            path.write_text(text)
        return load_settings(None if text is None else path, dict(environ), dict(overrides))

    return load


@pytest.fixture
def refused(loaded):
    """Why such settings cannot be used."""

    def refusal(*given, **options):
        with pytest.raises(InvalidSetting) as caught:
            loaded(*given, **options)
        return str(caught.value)

    return refusal


def test_without_a_file_every_setting_has_its_default(loaded):
    settings = loaded()
    assert settings == Settings()
    assert settings.catalogue.queries == "clipper.queries"
    assert (settings.forgets, settings.allowed, settings.files) == (True, (), FileRules())


def test_command_line_beats_environment_beats_file_beats_default(loaded):
    environ = {"CLIPPER_ROUTER_MAX_IN_FLIGHT": "2", "CLIPPER_ROUTER_HORIZON_S": "2"}
    text = "[router]\nmax_in_flight = 1\nhorizon_s = 1\nprocesses = 1\n"
    router = loaded(text, environ, {"router.max_in_flight": "3"}).router
    assert (router.max_in_flight, router.horizon_s, router.processes, router.cache_mib) == (3, 2.0, 1, 32.0)


@pytest.mark.parametrize("changed", ["console = true", "port = 0", "grpc_port = 0"])
def test_several_gateways_need_ports_to_share_and_no_console(loaded, refused, changed):
    several = {"processes": "2", "console": "false", "port": "8080", "grpc_port": "8081"}
    name, _, value = changed.partition(" = ")
    assert loaded(overrides={f"gateway.{key}": text for key, text in several.items()}).gateway.processes == 2
    why = refused(overrides={f"gateway.{key}": text for key, text in (several | {name: value}).items()})
    assert "they share ports, and no session of the console" in why


def test_the_password_comes_from_the_environment_only(loaded, refused):
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:9093",
        "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
        "KAFKA_SASL_USERNAME": "ada",
        "KAFKA_SASL_PASSWORD": "secret",
        "KAFKA_SSL_CAFILE": "",
    }
    settings = loaded('[kafka]\nbootstrap = "localhost:1"', environ)
    told = dict(security_protocol="SASL_SSL", username="ada", password="secret")
    assert settings.connection(environ) == KafkaConnection("kafka:9093", **told)
    assert "secret" not in repr(settings)
    assert "KAFKA_SASL_PASSWORD" in refused('[kafka]\npassword = "secret"')
    with pytest.raises(InvalidSetting, match="--bootstrap"):
        loaded().connection({})
    with pytest.raises(InvalidConnection, match="KAFKA_SASL_PASSWORD"):
        loaded(overrides={"kafka.bootstrap": "a:1", "kafka.username": "ada"}).connection({})


@pytest.mark.parametrize(("objective", "found"), [("", 100), ('objective_ms = "none"', None)])
def test_settings_written_as_json_are_read_back_equal(loaded, tmp_path, objective, found):
    """`none` stands for the null that TOML has not."""
    settings = loaded(DIGITS + objective, overrides={"kafka.bootstrap": "localhost:1"})
    assert settings.applications[0].objective_ms == found
    copy = tmp_path / "settings.json"
    copy.write_bytes(msgspec.json.encode(settings))
    assert load_settings(copy, {}) == settings


def test_a_worker_gets_plain_values_and_a_folder_of_its_own(loaded):
    settings = loaded(overrides={"kafka.bootstrap": "a:1", "router.cache_mib": "0.5", "host.data_dir": "/x"})
    kafka = settings.connection({})
    router = settings.worker(settings.router, "router-1", kafka)
    assert (router.section.cache_mib, router.kafka.bootstrap) == (0.5, "a:1")
    assert settings.worker(settings.host, "svm.1.0", kafka).data_dir == Path("/x/svm.1.0")
    other = Settings(kafka=KafkaSection(prefix="staging"))
    assert other.data_dir(other.host, "svm.1.0") == Path("data/staging/host/svm.1.0")
    for found, folder in ((settings, "data"), (other, "data/staging")):
        assert found.worker(found.router, "router-1", kafka).data_dir == Path(folder, "router/router-1")
        assert found.worker(found.gateway, "second", kafka).data_dir == Path(folder, "gateway/second")
        assert found.metrics_targets == Path(folder, "metrics-targets.json")


def test_a_gateway_gets_its_section_with_files_beside_the_configuration(loaded, tmp_path):
    text = '[gateway]\nkeys_file = "keys.json"\ntls_certfile = "/c"\ntls_keyfile = "k"'
    settings = loaded(text, {"CLIPPER_GATEWAY_CORS_ORIGINS": "https://a, https://b"}, {"kafka.bootstrap": "a:1"})
    gateway = settings.worker(settings.gateway, "gateway-b", settings.connection({}))
    section = gateway.section
    files = section.keys_file, section.tls_certfile, section.tls_keyfile
    assert files == (str(tmp_path / "keys.json"), "/c", str(tmp_path / "k"))
    assert section.cors_origins == ["https://a", "https://b"]
    assert (gateway.instance, gateway.horizon_s) == ("gateway-b", 3600.0)
    assert loaded(DIGITS).models[0].uri == str(tmp_path / "models" / "svm.skops")
    assert loaded(DIGITS.replace('"models/', '"s3://models/')).models[0].uri.startswith("s3://")
    assert loaded('[models]\ncache_dir = "kept"\n').files.cache_dir == str(tmp_path / "kept")


MODEL = '[[model]]\nname = "a"\nuri = "m:f"\n'


def test_a_model_has_the_runtime_that_its_uri_tells_and_the_row_of_the_applications_if_all_have_one(loaded, refused):
    assert loaded(DIGITS.replace('runtime = "sklearn"', "")).models[0].runtime == "sklearn"
    assert loaded(MODEL).models[0].runtime == "python"
    asked = '[[application]]\nname = "{}"\nmodels = ["a:1"]\ninput = {{shape = {}}}\n'.format
    assert loaded(asked("a", [64]) + asked("b", [64]) + MODEL).models[0].input.shape == [64]
    assert "takes input float32, the application takes" in refused(asked("a", [64]) + asked("b", [8]) + MODEL)


# --- what a process may load ----------------------------------------------------------------------------------------
URL, S3 = '[[model]]\nname = "a"\nruntime = "oip"\nuri = "http://models:80/v2/models/a"\n', "s3://acme/svm.skops"
ONNX = DIGITS.replace('"sklearn"', '"onnx"').replace("input", 'parameters = {prepare = "acme.rows:both"}\ninput', 1)
TRUSTED = DIGITS.replace("input", 'parameters = {trusted = ["acme.features.Scaler"]}\ninput', 1)
SAID = '[models]\nallowed_modules = ["models"]\nallowed_locations = ["models", "/srv/models", "s3://acme"]\n'


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (MODEL + TRUSTED, ["m:", "{}/models/svm.skops", "acme.features.Scaler"]),
        (ONNX, ["{}/models/svm.skops", "acme.rows:"]),
        (URL, ["http://models:80/v2/models/a"]),
        (DIGITS.replace("models/svm.skops", S3), [S3]),
        (SAID + DIGITS.replace("models/svm.skops", S3), ["models", "{}/models", "/srv/models", "s3://acme"]),
        ('[models]\nallowed_locations = ["http://models:80"]\n' + URL, ["http://models:80"]),
        ("[models]\nallowed_modules = []", []),
    ],
)
def test_a_process_may_load_what_its_own_configuration_declares_or_says(loaded, tmp_path, text, allowed):
    settings = loaded(text)
    assert settings.allowed == tuple(each.format(tmp_path) for each in allowed)
    assert settings.worker(settings.router, "r", KafkaConnection("a:1")).allowed == settings.allowed
    assert all(model.uri in text for model in settings.models if "http" in model.uri)


def test_variables_and_options_say_what_is_allowed_too_and_what_is_outside_of_that_is_refused(loaded, refused):
    environ = {"CLIPPER_MODELS_ALLOWED_MODULES": "acme, shop", "CLIPPER_MODELS_ALLOWED_LOCATIONS": "models, /srv"}
    assert loaded(environ=environ).allowed == ("acme", "shop", str(Path("models").resolve()), "/srv")
    assert loaded(overrides={"models.allowed_modules": "acme"}).allowed == ("acme",)
    told = '[models]\nallowed_locations = ["{}"]\n'.format
    for text in (
        told("http://other:80") + URL,
        told("s3://other") + DIGITS.replace("models/svm.skops", S3),
        told("models") + ONNX,
    ):
        assert "is outside of what this process may load" in refused(text)


def test_a_model_that_is_unpickled_is_refused_unless_the_operator_permits_it(loaded, refused):
    pickled = DIGITS.replace('"sklearn"', '"joblib"')
    assert "model 'svm:1'" in refused(pickled)
    assert "set [models] unpickle = true" in refused(pickled)
    assert loaded("[models]\nunpickle = true\n" + pickled).files == FileRules(unpickle=True)
    settings, kafka = loaded(pickled, {"CLIPPER_MODELS_UNPICKLE": "true"}), KafkaConnection("a:1")
    assert settings.worker(settings.host, "h", kafka).files.unpickle
    assert settings.worker(settings.router, "r", kafka).files.unpickle
