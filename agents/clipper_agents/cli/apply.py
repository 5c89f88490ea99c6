"""`clipper-stream apply`: publish the manifests of a configuration."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clipper_agents.cli.options import Bootstrap, ConfigFile, Set, settings_from

if TYPE_CHECKING:
    from clipper_agents.settings import Settings


def apply(config: ConfigFile = Path("clipper.toml"), bootstrap: Bootstrap = None, assignments: Set = None) -> None:
    """Publish the applications and models of a configuration; running routers follow at once.

    Prints a line for each manifest that changed. What the configuration does not name stays as it is. A model file
    without a digest gets the one that it has here.
    """
    for line in asyncio.run(_applied(settings_from(config, bootstrap, assignments))):
        print(line)


async def _applied(settings: "Settings") -> list[str]:
    from clipper_agents.admin import ensure_topics
    from clipper_agents.supervisor.applying import apply_manifests, pinned
    from clipper_topics.manifests import ApplicationManifest

    kafka, catalogue = settings.connection(os.environ), settings.catalogue
    models = pinned(settings.models)
    report = await ensure_topics(kafka, catalogue, models, replication_factor=settings.kafka.replication)
    for line in report.advice:
        print(f"warning: {line}", file=sys.stderr)
    changed = await apply_manifests(kafka, catalogue, settings.applications, models)
    return [
        f"application {each.name} revision {each.revision}"
        if isinstance(each, ApplicationManifest)
        else f"model {each.ref}"
        for each in changed
    ] or ["nothing changed"]
