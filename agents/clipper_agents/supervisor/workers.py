"""The command lines of the workers of a deployment.

Rules of this file:
- A worker reads a settings file of its own, written here: what `up` has resolved (file, environment, command line,
  the embedded broker's address) counts, and its command line can be repeated by hand.
- Which models a worker may load is what the operator's configuration says, resolved here once. A worker must not derive
  it from its own file: the model in there may come from the control topic.
- Of the connection only the password is handed on by the environment; it is in no file and on no command line.
- Names are stable from one start to the next: `router-0`, `host.svm.2.0` (static membership, KIP-345). Machines that
  run hosts together put their own name before the number, `host.svm.2.a-0`.
- With a first metrics port configured, a worker has the lowest port that no other has; whoever ends gives it back.
"""

import itertools
import logging
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from math import ceil
from pathlib import Path

import msgspec

from clipper_agents.control.plan import wanted_hosts
from clipper_agents.observability.logging import DEFAULT_LOGS, LogOptions, event
from clipper_agents.settings import Settings
from clipper_agents.settings.load import is_setting
from clipper_agents.supervisor.process import ChildSpec
from clipper_agents.threads import ONE_THREAD
from clipper_stream.errors import install_command
from clipper_topics.manifests import ModelManifest

log = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-P", "-m", "clipper_agents.cli.main")
GATEWAY = "gateway"
ROLES = ("router", "host", "steward", GATEWAY)
GATEWAY_MODULES = ("grpc", "open_inference", "starlette", "uvicorn")
"""What a gateway cannot do without, of the extra of its name."""
ENDS_WITHIN_S = 5.0
"""After its `drain_s`, which is for open calls, a gateway has so long to end."""


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of workers, without settings; a host with more cores has other thread variables."""
    return {**ONE_THREAD, **{name: value for name, value in environ.items() if not is_setting(name)}}


class Workers:
    """Writes settings files, of resolved settings, into a folder, and makes the specs of children that read them."""

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        environ: Mapping[str, str],
        machine: str = "",
        *,
        logs: LogOptions = DEFAULT_LOGS,
        program: tuple[str, ...] = PROGRAM,
    ) -> None:
        self.machine = machine  # in the names of hosts, where several machines run them
        self.allowed = settings.allowed
        self.files = settings.files
        modules, locations = ([each for each in self.allowed if ("/" in each) is place] for place in (False, True))
        loading = msgspec.structs.replace(settings.loading, allowed_modules=modules, allowed_locations=locations)
        self._settings = msgspec.structs.replace(settings, loading=loading)
        self._run_dir, self._program = run_dir, program
        self._environ = environ
        self._logs = logs
        self._ports: dict[str, int] = {}

    def routers(self) -> list[ChildSpec]:
        names = [f"router-{number}" for number in range(self._settings.router.processes)]
        return self._specs(names, "router", "worker router")

    def stewards(self) -> list[ChildSpec]:
        """The spec of the steward; none when it is not wanted."""
        return self._specs(["steward"] if self._settings.steward.enabled else [], "steward", "worker steward")

    def gateways(self, needs: Sequence[str] = GATEWAY_MODULES) -> list[ChildSpec]:
        """The specs of the gateway; none when it is not wanted, or lacks a module that it needs, which is logged."""
        section = self._settings.gateway
        missing = [module for module in needs if find_spec(module) is None]
        if section.enabled and missing:
            remedy = install_command(GATEWAY)
            event(log, "no gateway for HTTP and gRPC", missing=",".join(missing), remedy=remedy)
        names = [GATEWAY, *(f"{GATEWAY}-{number}" for number in range(1, section.processes))]
        specs = self._specs(names if section.enabled and not missing else [], GATEWAY, GATEWAY)
        return [replace(spec, drain_s=section.drain_s + ENDS_WITHIN_S) for spec in specs]

    def hosts(self, model: ModelManifest) -> list[ChildSpec]:
        """One spec a replica; none for a model that is colocated or retired."""
        return self._specs(host_names(model, self.machine), "host", f"worker host {model.ref}", model)

    def forget(self, name: str) -> None:
        """This host has ended for good: its port is free, and what it kept on the disk is deleted."""
        self._ports.pop(name, None)
        shutil.rmtree(self._settings.data_dir(self._settings.host, name), ignore_errors=True)

    def forget_model(self, model: ModelManifest) -> None:
        """No host of this version is started any more."""
        (self._run_dir / f"{_stem(model)}.json").unlink(missing_ok=True)

    def _specs(
        self, names: Sequence[str], section: str, command: str, model: ModelManifest | None = None
    ) -> list[ChildSpec]:
        config = self._run_dir / f"{_stem(model) if model else section}.json"
        if names:
            content = msgspec.structs.replace(self._settings, applications=[], models=[model] if model else [])
            config.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
        cores = model.cpus if model and model.cpus is not None else 1
        threads = dict.fromkeys(ONE_THREAD, str(ceil(cores)))
        environment = worker_environment({**threads, **self._environ})
        first = getattr(self._settings, section).metrics_port
        specs = []
        for name in names:
            port = self._port(name, first) if first else 0
            options = ("--config", str(config), "--instance", name, "--set", f"{section}.metrics_port={port}")
            words = (*self._program, *command.split(), *options, "--ends-with-stdin", *self._logs.words)
            specs.append(ChildSpec(name=name, command=words, environment=environment))
        return specs

    def _port(self, name: str, first: int) -> int:
        if name not in self._ports:
            taken = set(self._ports.values())
            self._ports[name] = next(port for port in itertools.count(first) if port not in taken)
        return self._ports[name]


def host_names(model: ModelManifest, machine: str = "") -> list[str]:
    """The names of the hosts that a version should have, on this machine where there are several.

    >>> svm = ModelManifest(name="svm", version="2", uri="m:f", replicas=2)
    >>> host_names(svm), host_names(svm, "a.example")
    (['host.svm.2.0', 'host.svm.2.1'], ['host.svm.2.a.example-0', 'host.svm.2.a.example-1'])
    """
    prefix = f"{machine}-" if machine else ""
    return [f"{_stem(model)}.{prefix}{number}" for number in range(wanted_hosts(model))]


def role_of(name: str) -> str:
    """The role of a child of this name.

    >>> role_of("router-0"), role_of("host.svm.2.0"), role_of("steward")
    ('router', 'host', 'steward')
    """
    return re.split("[-.]", name, maxsplit=1)[0]


def model_of_host(name: str) -> str | None:
    """The version that a child of this name hosts; None when it is no host.

    >>> model_of_host("host.svm.2.0"), model_of_host("host.svm.2.a.example-0"), model_of_host("router-0")
    ('svm:2', 'svm:2', None)
    """
    kind, *parts = name.split(".", 3)
    return f"{parts[0]}:{parts[1]}" if kind == "host" and len(parts) == 3 else None  # noqa: PLR2004 (model.version.number)


def _stem(model: ModelManifest) -> str:
    return f"host.{model.name}.{model.version}"
