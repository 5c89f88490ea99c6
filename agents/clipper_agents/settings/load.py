"""`Settings`: a checked configuration, and how it is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from clipper_agents.settings.checks import declared_code, gateway_problems, manifest_problems, outside_problems
from clipper_agents.settings.error_messages import explained
from clipper_agents.settings.sections import (
    BrokerSection,
    GatewaySection,
    HostSection,
    KafkaSection,
    ModelsSection,
    RouterSection,
    StewardSection,
    SupervisorSection,
)
from clipper_agents.settings.sources import overlay, read_file
from clipper_agents.settings.workers import MIB, GatewaySettings, HostSettings, RouterSettings, StewardSettings
from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_stream.models.runtimes.model_files import FileRules
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import VARIABLES, InvalidConnection, KafkaConnection
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest


class Settings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
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
        """The topics."""
        return Catalogue(prefix=self.kafka.prefix, partitions=self.kafka.partitions)

    @property
    def forgets(self) -> bool:
        """Whether the deployment lives on a temporary embedded broker, so that all its data is temporary."""
        return self.kafka.bootstrap is None and self.broker.data_dir is None

    def connection(self, environ: Mapping[str, str]) -> KafkaConnection:
        """How to reach Kafka.

        Args:
            environ: Only `KAFKA_SASL_PASSWORD` is read from it; `load_settings` has read the rest.

        Raises:
            InvalidSetting: no address, or settings that do not fit together.
        """
        kafka = self.kafka
        if not kafka.bootstrap:
            raise InvalidSetting(
                "no Kafka address: give --bootstrap HOST:PORT, KAFKA_BOOTSTRAP_SERVERS or [kafka] bootstrap, "
                "or run `clipper-stream up` in this folder"
            )
        try:
            return KafkaConnection(
                kafka.bootstrap,
                security_protocol=kafka.security_protocol.upper(),
                sasl_mechanism=kafka.sasl_mechanism and kafka.sasl_mechanism.upper(),
                username=kafka.username,
                password=(environ.get(VARIABLES["password"]) or None) if kafka.username else None,
                cafile=kafka.cafile,
                certfile=kafka.certfile,
                keyfile=kafka.keyfile,
            )
        except InvalidConnection as error:
            raise InvalidSetting(str(error)) from error

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
        """What the operator says about model files."""
        return FileRules(unpickle=self.loading.unpickle, cache_dir=self.loading.cache_dir)

    def model(self, ref: str) -> ModelManifest:
        """The declared model of this reference, `name:version`.

        Raises:
            UnknownName: it is not declared.
        """
        declared = {model.ref: model for model in self.models}
        if ref not in declared:
            raise UnknownName(f"model {ref!r} is not declared; declared: {', '.join(declared) or 'none'}")
        return declared[ref]

    def router_settings(self, instance: str, kafka: KafkaConnection) -> RouterSettings:
        """What the router of this name needs."""
        return RouterSettings(
            **self._worker_settings(instance, kafka, self.router),
            data_dir=Path(self.router.data_dir or self._own_folder / "router") / instance,
            allowed=self.allowed,
            files=self.files,
            max_in_flight=self.router.max_in_flight,
            horizon_s=self.router.horizon_s,
            max_contexts=self.router.max_contexts,
            cache_bytes=int(self.router.cache_mib * MIB),
        )

    def host_data_dir(self, instance: str) -> Path:
        """Where the host of this name keeps what it must know after a death."""
        return Path(self.host.data_dir or self._own_folder / "host") / instance

    def host_settings(self, instance: str, model: ModelManifest, kafka: KafkaConnection) -> HostSettings:
        """What the host of this name needs to serve the model."""
        return HostSettings(
            **self._worker_settings(instance, kafka, self.host),
            model=model,
            allowed=self.allowed,
            files=self.files,
            data_dir=self.host_data_dir(instance),
        )

    def steward_settings(self, instance: str, kafka: KafkaConnection) -> StewardSettings:
        """What the steward of this name needs."""
        return StewardSettings(
            **self._worker_settings(instance, kafka, self.steward),
            horizon_s=self.router.horizon_s,
            max_queries=self.steward.max_queries,
        )

    def gateway_settings(self, instance: str, kafka: KafkaConnection) -> GatewaySettings:
        """What the gateway of this name needs."""
        return GatewaySettings(
            **self._worker_settings(instance, kafka, self.gateway),
            section=self.gateway,
            console_dir=Path(self.gateway.console_dir or self._own_folder / "gateway") / instance,
            horizon_s=self.router.horizon_s,
        )

    @property
    def metrics_targets(self) -> Path:
        """The file in which Prometheus finds the processes that `up` starts."""
        return self._own_folder / "metrics-targets.json"

    @property
    def _own_folder(self) -> Path:
        """Two deployments that run in one folder have other prefixes, and other data."""
        prefix = self.kafka.prefix
        return Path("data") if prefix == KafkaSection().prefix else Path("data") / prefix

    def _worker_settings(
        self,
        instance: str,
        kafka: KafkaConnection,
        section: RouterSection | HostSection | StewardSection | GatewaySection,
    ) -> dict[str, Any]:
        return {
            "kafka": kafka,
            "catalogue": self.catalogue,
            "instance": instance,
            "metrics_port": section.metrics_port,
            "metrics_address": section.metrics_address,
        }


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
    content = overlay(read_file(path) if path else {}, environ, overrides or {})
    source = str(path) if path else "settings"
    try:
        settings = msgspec.convert(content, Settings)
    except msgspec.ValidationError as error:
        raise InvalidSetting(f"{source}: {explained(str(error), content, Settings)}") from error
    settings = _with_rows_of_applications(settings)
    problems = [*_section_problems(settings), *manifest_problems(settings.applications, settings.models)]
    if problems:
        raise InvalidSetting("\n".join(f"{source}: {problem}" for problem in problems))
    settings = _with_paths_from(path.parent if path else Path(), settings)
    if outside := [*outside_problems(settings.models, settings.allowed, settings.files)]:
        raise InvalidSetting("\n".join(f"{source}: {problem}" for problem in outside))
    return settings


def _with_rows_of_applications(settings: Settings) -> Settings:
    """A model whose row is not stated has that of the applications that name it, where these agree."""
    models = []
    for model in settings.models:
        rows = [one.input for one in settings.applications if model.ref in one.refs]
        unstated = model.input == InputSpec() and rows and all(row == rows[0] for row in rows)
        models.append(msgspec.structs.replace(model, input=rows[0]) if unstated else model)
    return msgspec.structs.replace(settings, models=models)


def _section_problems(settings: Settings) -> list[str]:
    problems = []
    processes, partitions = settings.router.processes, settings.kafka.partitions
    if processes > partitions:
        problems.append(f"router.processes = {processes}: at most kafka.partitions = {partitions}, one has one writer")
    if settings.forgets and (settings.router.data_dir or settings.host.data_dir or settings.gateway.console_dir):
        problems.append(
            "router.data_dir, host.data_dir and gateway.console_dir outlive the temporary embedded broker that they "
            "belong to: "
            "give broker.data_dir (or kafka.bootstrap) as well, or none of them"
        )
    problems += [
        f"models.allowed_modules: {entry!r} is no module: put it into models.allowed_locations"
        for entry in settings.loading.allowed_modules or ()
        if "/" in entry
    ]
    return [*problems, *gateway_problems(settings.gateway)]


def _with_paths_from(folder: Path, settings: Settings) -> Settings:
    """Files and directories are named relative to the configuration's folder: it can be used from anywhere."""

    def absolute(place: str) -> str:
        return place if "://" in place or Path(place).is_absolute() else str((folder / place).resolve())

    models = [
        model if model.runtime == "python" else msgspec.structs.replace(model, uri=absolute(model.uri))
        for model in settings.models
    ]
    locations, cache_dir = settings.loading.allowed_locations, settings.loading.cache_dir
    if locations is not None:
        locations = [*map(absolute, locations)]
    if cache_dir is not None:
        cache_dir = absolute(cache_dir)
    loading = msgspec.structs.replace(settings.loading, allowed_locations=locations, cache_dir=cache_dir)
    names = ("keys_file", "tls_certfile", "tls_keyfile")
    files = {name: absolute(path) for name in names if (path := getattr(settings.gateway, name))}
    gateway = msgspec.structs.replace(settings.gateway, **files)
    return msgspec.structs.replace(settings, models=models, loading=loading, gateway=gateway)
