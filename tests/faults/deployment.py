"""The deployment that most cases are about: applications that learn in every way there is."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from e2e.any_client import AnyClient
from e2e.programs import Program, environment_of, run

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

CONFIGURATION = Path(__file__).with_name("kills.toml")
APPLICATIONS = {one["name"]: one for one in tomllib.loads(CONFIGURATION.read_text())["application"]}


class OwnDeployment(NamedTuple):
    """Topics of one's own on a Kafka that others use too, and how to start something there."""

    client: AnyClient
    catalogue: Catalogue
    folder: Path
    data: Path
    environ: dict[str, str]
    configuration: Path = CONFIGURATION

    @classmethod
    def on(
        cls,
        kafka: KafkaConnection,
        catalogue: Catalogue,
        folder: Path,
        data: Path | None = None,
        configuration: Path = CONFIGURATION,
    ) -> "OwnDeployment":
        """Apply the configuration; routers keep their data in a folder of that name."""
        environ = environment_of(kafka, catalogue)
        assert run("apply", "--config", str(configuration), folder=folder, environ=environ).code == 0
        return cls(AnyClient(kafka.bootstrap), catalogue, folder, data or folder / "data", environ, configuration)

    def start(self, *arguments: str, through: Sequence[str] = ()) -> Program:
        """A command, with the configuration."""
        settings = ("--config", str(self.configuration), "--set", f"router.data_dir={self.data}")
        return Program(*arguments, *settings, folder=self.folder, environ=self.environ, through=through)

    def worker(self, *arguments: str, through: Sequence[str] = ()) -> Program:
        """A worker, named for example `router-0`."""
        return self.start("worker", *arguments, "--instance", f"{arguments[0]}-0", through=through)
