"""The command lines of the workers of a deployment.

Rules of this file:
- A worker reads a settings file of its own, written here: what `up` has resolved (file, environment, command line,
  the embedded broker's address) counts, and its command line can be repeated by hand.
- Which models a worker may load is what the operator's configuration says, resolved here once. A worker must not derive
  it from its own file: the model in there may come from the control topic.
- Of the connection only the password is handed on by the environment; it is in no file and on no command line.
- Names are stable from one start to the next: `router-0`, `host.svm.2.0` (static membership, KIP-345).
"""

import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from clipper_agents.settings import Settings
from clipper_agents.settings.reading import is_setting
from clipper_agents.supervisor.process import ChildSpec
from clipper_agents.threads import ONE_THREAD
from clipper_topics.manifests import ModelManifest

PROGRAM = (sys.executable, "-m", "clipper_agents.cli.main")


class Workers:
    """Writes settings files and makes the specs of the children that read them.

    Args:
        settings: Resolved, with `kafka.bootstrap`.
        run_dir: Folder of the settings files.
        environ: The environment variables of the supervisor.
        log_level: Of the workers; None: theirs from the environment.
        program: How the command line program is started.
    """

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        environ: Mapping[str, str],
        *,
        log_level: str | None = None,
        program: tuple[str, ...] = PROGRAM,
    ) -> None:
        self.allowed = settings.allowed
        """Packages, modules and directories that the workers may load models from."""
        self.files = settings.files
        """What the operator says about model files."""
        loading = msgspec.structs.replace(settings.loading, allowed=list(self.allowed))
        self._settings = msgspec.structs.replace(settings, loading=loading)
        self._run_dir, self._program = run_dir, program
        self._environment = ONE_THREAD | {name: value for name, value in environ.items() if not is_setting(name)}
        self._log_level = ("--log-level", log_level) if log_level else ()
        self._router_ports = _ports(settings.router.metrics_port)
        self._host_ports = _ports(settings.host.metrics_port)

    def routers(self) -> list[ChildSpec]:
        """One spec a router process."""
        content = msgspec.structs.replace(self._settings, applications=[], models=[])
        config = self._write("router", content)
        return [
            self._spec(f"router-{number}", "router", "router", config, next(self._router_ports))
            for number in range(self._settings.router.processes)
        ]

    def stewards(self) -> list[ChildSpec]:
        """The spec of the steward; none when it is not wanted."""
        if not self._settings.steward.enabled:
            return []
        config = self._write("steward", msgspec.structs.replace(self._settings, applications=[], models=[]))
        return [self._spec("steward", "steward", "steward", config, self._settings.steward.metrics_port)]

    def hosts(self, model: ModelManifest) -> list[ChildSpec]:
        """One spec a replica; none for a colocated model."""
        if model.colocated:
            return []
        content = msgspec.structs.replace(self._settings, applications=[], models=[model])
        config = self._write(f"host.{model.name}.{model.version}", content)
        return [
            self._spec(f"host.{model.name}.{model.version}.{number}", "host", f"host {model.ref}", config, port)
            for number, port in zip(range(model.replicas), self._host_ports, strict=False)
        ]

    def _write(self, name: str, content: Settings) -> Path:
        path = self._run_dir / f"{name}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
        return path

    def _spec(self, name: str, section: str, command: str, config: Path, port: int) -> ChildSpec:
        options = ("--config", str(config), "--instance", name, "--set", f"{section}.metrics_port={port}")
        return ChildSpec(
            name=name,
            command=(*self._program, "worker", *command.split(), *options, "--ends-with-stdin", *self._log_level),
            environment=self._environment,
        )


def _ports(first: int) -> Iterator[int]:
    return itertools.count(first) if first else itertools.repeat(0)
