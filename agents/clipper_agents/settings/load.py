"""`Settings`: a checked configuration, and how it is loaded.

Rules of this file:
- Precedence, said here and nowhere else: command line, then environment, then file, then default.
- The environment knows `KAFKA_*` for the connection (`clipper_topics.connection.VARIABLES`; an empty one is absent)
  and `CLIPPER_<SECTION>_<KEY>` for every key of a section: `CLIPPER_ROUTER_PROCESSES=2` is `[router] processes = 2`.
  Other `CLIPPER_*` variables are not looked at.
- Text from the environment or the command line is turned into the key's type; a list is separated by commas.
- A model without a runtime has the one that the form of its URI tells.
- TOML has no null, so `objective_ms = "none"` stands for it: an application without a deadline.
- Files and folders are named relative to the configuration's folder: it can be used from anywhere.
"""

import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from clipper_agents.settings.checks import declared_code, manifest_problems, outside_problems
from clipper_agents.settings.error_messages import explained
from clipper_agents.settings.sections import (
    BrokerSection,
    GatewaySection,
    HostSection,
    KafkaSection,
    ModelsSection,
    RouterSection,
    Section,
    StewardSection,
    SupervisorSection,
)
from clipper_stream.errors import InvalidSetting
from clipper_stream.models.allowlist import local_path
from clipper_stream.models.registry import RUNTIMES, runtime_for
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.names import choices
from clipper_topics.catalogue import Catalogue, TopicCreation
from clipper_topics.connection import VARIABLES, KafkaConnection
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest

S = TypeVar("S", RouterSection, HostSection, StewardSection, GatewaySection)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings(Generic[S]):
    """Settings of one worker process.

    Attributes:
        instance: Its stable name: a restart under the same name takes its partitions back (KIP-345).
        section: What is said of processes of its role.
        data_dir: Folder of its own, for what it keeps.
        horizon_s: How long after its query a feedback still counts, in seconds.
        allowed: Packages, modules and locations that it may load models from.
        files: What it may do with model files.
    """

    kafka: KafkaConnection
    catalogue: Catalogue
    instance: str
    section: S
    data_dir: Path = Path()
    horizon_s: float = RouterSection().horizon_s
    allowed: tuple[str, ...] = ()
    files: FileRules = STRICT


class Settings(Section, frozen=True):
    """The content of clipper.toml with the environment and the command line on top.

    >>> Settings(router=RouterSection(processes=2)).router.processes
    2
    """

    kafka: KafkaSection = KafkaSection()
    broker: BrokerSection = BrokerSection()
    router: RouterSection = RouterSection()
    host: HostSection = HostSection()
    steward: StewardSection = StewardSection()
    gateway: GatewaySection = GatewaySection()
    supervisor: SupervisorSection = SupervisorSection()
    loading: ModelsSection = msgspec.field(default_factory=ModelsSection, name="models")
    applications: list[ApplicationManifest] = msgspec.field(default_factory=list, name="application")
    models: list[ModelManifest] = msgspec.field(default_factory=list, name="model")

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(prefix=self.kafka.prefix, partitions=self.kafka.partitions)

    @property
    def topic_creation(self) -> TopicCreation:
        return TopicCreation(self.kafka.replication, self.kafka.create_topics)

    @property
    def forgets(self) -> bool:
        """Whether the deployment lives on a temporary embedded broker, so that all its data is temporary."""
        return self.kafka.bootstrap is None and self.broker.data_dir is None

    @property
    def allowed(self) -> tuple[str, ...]:
        """What a process may load: what is said, or else what this configuration itself declares, and nothing else.

        To be asked of a configuration that an operator wrote, never of one with models from the control topic.
        """
        modules, locations = self.loading.allowed_modules, self.loading.allowed_locations
        if modules is None and locations is None:
            return tuple(dict.fromkeys(declared_code(self.models)))
        return (*(modules or ()), *(locations or ()))

    @property
    def files(self) -> FileRules:
        return FileRules(unpickle=self.loading.unpickle, cache_dir=self.loading.cache_dir)

    @property
    def metrics_targets(self) -> Path:
        """The file in which Prometheus finds the processes that `up` starts."""
        return self._own_folder / "metrics-targets.json"

    def connection(self, environ: Mapping[str, str]) -> KafkaConnection:
        """How to reach Kafka; of the environment only `KAFKA_SASL_PASSWORD` is read here."""
        kafka = self.kafka
        if not kafka.bootstrap:
            raise InvalidSetting(
                "no Kafka address: give --bootstrap HOST:PORT, KAFKA_BOOTSTRAP_SERVERS or [kafka] bootstrap, "
                "or run `clipper-stream up` in this folder"
            )
        given: dict[str, str] = {variable: getattr(kafka, key) or "" for variable, key in KAFKA_VARIABLES.items()}
        password = VARIABLES["password"]
        return KafkaConnection.from_environment(given | {password: (kafka.username and environ.get(password)) or ""})

    def worker(self, section: S, instance: str, kafka: KafkaConnection) -> WorkerSettings[S]:
        """What the worker of this name needs, whose role has this section."""
        return WorkerSettings(
            kafka=kafka,
            catalogue=self.catalogue,
            instance=instance,
            section=section,
            data_dir=self.data_dir(section, instance),
            horizon_s=self.router.horizon_s,
            allowed=self.allowed,
            files=self.files,
        )

    def data_dir(self, section: Section, instance: str) -> Path:
        """Where the worker of this name, whose role has this section, keeps what it must know after its end."""
        stated = section.console_dir if isinstance(section, GatewaySection) else getattr(section, "data_dir", None)
        return Path(stated or self._own_folder / type(section).__name__.removesuffix("Section").lower()) / instance

    @property
    def _own_folder(self) -> Path:
        """Two deployments that run in one folder have other prefixes, and other data."""
        prefix = self.kafka.prefix
        return Path("data") if prefix == KafkaSection().prefix else Path("data") / prefix


SECTIONS: dict[str, type[Section]] = {
    field.encode_name: field.type
    for field in msgspec.structs.fields(Settings)
    if isinstance(field.type, type) and issubclass(field.type, Section)
}
KAFKA_VARIABLES = {variable: key for key, variable in VARIABLES.items() if key != "password"}
"""The connection's variables and their keys; the password is read where the connection is made, and kept nowhere."""


def load_settings(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> Settings:
    """Read, convert and check a configuration.

    Args:
        path: A TOML file, or JSON of the same shape; None: defaults, environment and command line only.
        environ: The environment variables.
        overrides: From the command line, `section.key` to text.

    Raises:
        InvalidSetting: with the file, the key, the value and what is allowed.
    """
    content, folder = read_file(path) if path else {}, path.parent if path else Path()
    for source, section, key, text in (*_from_environment(environ), *_from_command_line(overrides or {})):
        target = content.setdefault(section, {})
        if isinstance(target, dict):
            target[key] = _typed(source, section, key, text)

    def refusal(problems: Iterable[str]) -> InvalidSetting:
        lines = dict.fromkeys([*_missing_files(folder, content), *problems])
        return InvalidSetting("\n".join(f"{path or 'settings'}: {line}" for line in lines))

    try:
        settings = _with_paths_from(folder, _with_rows_of_applications(msgspec.convert(content, Settings)))
    except msgspec.ValidationError as error:
        raise refusal([explained(str(error), content, Settings)]) from error
    outside = outside_problems(settings.models, settings.allowed, settings.files)
    if problems := [*_problems(settings), *manifest_problems(settings.applications, settings.models), *outside]:
        raise refusal(problems)
    return settings


def read_file(path: Path) -> dict[str, Any]:
    """The content of a TOML file, or of a JSON file of the same shape (`*.json`, written by `up` for its workers)."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        instead = "`clipper-stream init` writes one to start from, --config FILE names another"
        raise InvalidSetting(f"{path}: {error.strerror}; {instead}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path}: not {path.suffix.lstrip('.') or 'toml'}: {error}") from error
    if not isinstance(content, dict):
        raise InvalidSetting(f"{path}: expected a table of sections")
    for application in _tables(content.get("application")):
        if application.get("objective_ms") == "none":
            application["objective_ms"] = None
    for model in _tables(content.get("model")):
        model.setdefault("runtime", runtime_for(str(model.get("uri"))) or "python")
    return content


def _missing_files(folder: Path, content: Mapping[str, Any]) -> Iterator[str]:
    """Model files that are not here; no problem by themselves, as the models may be loaded on another machine."""
    for model in _tables(content.get("model")):
        uri, has_file = model.get("uri"), getattr(RUNTIMES.get(str(model["runtime"])), "NEEDS_DIGEST", False)
        path = local_path(uri) if isinstance(uri, str) and has_file else None
        if path is not None and not os.path.exists(folder / path):  # noqa: PTH110 - false where no file has such a name
            yield f"model {model.get('name')!r}: there is no file {folder / path}: put it there, or correct its uri"


def _tables(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def is_setting(variable: str) -> bool:
    """Whether `load_settings` reads this environment variable; the password is not one of them."""
    return any(_from_environment({variable: "x"}))


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    for name, text in environ.items():
        if text and name in KAFKA_VARIABLES:
            yield name, "kafka", KAFKA_VARIABLES[name], text
        head, _, tail = name.lower().partition("_")
        section, _, key = tail.partition("_")
        if head == "clipper" and section in SECTIONS and key:
            yield name, section, key, text


def _from_command_line(overrides: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    for name, text in overrides.items():
        section, _, key = name.partition(".")
        if section not in SECTIONS:
            raise InvalidSetting(f"{name}: no such setting: write section.key; {choices(section, SECTIONS)}")
        yield name, section, key, text


def _typed(source: str, section: str, key: str, text: str) -> Any:
    fields = {field.name: field.type for field in msgspec.structs.fields(SECTIONS[section])}
    if key not in fields:
        raise InvalidSetting(f"{source}: [{section}] has no key {key!r}: {choices(key, fields)}")
    is_list = "list" in str(fields[key])
    value = [part for part in map(str.strip, text.split(",")) if part] if is_list else text
    try:
        return msgspec.convert(value, fields[key], strict=False)
    except msgspec.ValidationError as error:
        raise InvalidSetting(f"{source}={text!r}: {error}".replace("`", "")) from error


def _with_rows_of_applications(settings: Settings) -> Settings:
    """A model whose row is not stated has that of the applications that name it, where these agree."""
    models = []
    for model in settings.models:
        rows = [one.input for one in settings.applications if model.ref in one.refs]
        unstated = model.input == InputSpec() and rows and all(row == rows[0] for row in rows)
        models.append(msgspec.structs.replace(model, input=rows[0]) if unstated else model)
    return msgspec.structs.replace(settings, models=models)


def _problems(settings: Settings) -> Iterator[str]:
    processes, partitions = settings.router.processes, settings.kafka.partitions
    if processes > partitions:
        bound = f"at most kafka.partitions = {partitions}, of which each has one router"
        yield f"router.processes = {processes}: {bound}: start fewer, or raise kafka.partitions"
    if settings.forgets and (settings.router.data_dir or settings.host.data_dir or settings.gateway.console_dir):
        yield (
            "router.data_dir, host.data_dir and gateway.console_dir outlive the temporary embedded broker that they "
            "belong to: give broker.data_dir (or kafka.bootstrap) as well, or none of them"
        )
    for entry in settings.loading.allowed_modules or ():
        if "/" in entry:
            yield f"models.allowed_modules: {entry!r} is no module: put it into models.allowed_locations"
    yield from _gateway_problems(settings.gateway)


def _gateway_problems(gateway: GatewaySection) -> Iterator[str]:
    pairs = ("tls_certfile", "tls_keyfile"), ("oidc_issuer", "oidc_audience")
    for given, missing in [*pairs, *(pair[::-1] for pair in pairs), ("oidc_jwks_url", "oidc_issuer")]:
        if getattr(gateway, given) and not getattr(gateway, missing):
            yield f"gateway.{given} is given without gateway.{missing}: give both, or none of them"
    if gateway.port and gateway.port == gateway.grpc_port:
        yield f"gateway.port = gateway.grpc_port = {gateway.port}: give each server a port of its own, or 0"
    if gateway.processes > 1 and (gateway.console or not (gateway.port and gateway.grpc_port)):
        what = f"gateway.processes = {gateway.processes}: they share ports, and no session of the console"
        yield f"{what}: give gateway.port and gateway.grpc_port, and console = false"


def _with_paths_from(folder: Path, settings: Settings) -> Settings:
    change = msgspec.structs.replace

    def absolute(place: str) -> str:
        return place if "://" in place or Path(place).is_absolute() else str((folder / place).resolve())

    def resolved(section: Section, *names: str) -> Any:
        stated = {name: value for name in names if (value := getattr(section, name)) is not None}
        absolutes = {key: absolute(at) if isinstance(at, str) else [*map(absolute, at)] for key, at in stated.items()}
        return change(section, **absolutes)

    return change(
        settings,
        models=[each if each.runtime == "python" else change(each, uri=absolute(each.uri)) for each in settings.models],
        loading=resolved(settings.loading, "allowed_locations", "cache_dir"),
        gateway=resolved(settings.gateway, "keys_file", "tls_certfile", "tls_keyfile"),
    )
