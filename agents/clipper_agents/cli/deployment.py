"""What most commands are given: a deployment, and a change of its registry; the options of both stand here once.

    @model.command("promote")
    @with_change
    def promote_model(change: ChangeRequest, ref: Ref) -> None: ...

gives the command the options of `ChangeRequest` in place of the parameter `change`.
"""

import asyncio
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipper_agents.cli.options import (
    Bootstrap,
    By,
    ConfigFile,
    Json,
    LogFormat,
    LogLevel,
    Revision,
    Set,
    Why,
    fields_of,
)
from clipper_agents.cli.terminal import print_json, say

if TYPE_CHECKING:
    from clipper_agents.control.change_records import Signature
    from clipper_agents.control.plan import Plan
    from clipper_agents.control.state import ControlState
    from clipper_agents.kafka.topics import TopicsReport
    from clipper_agents.observability.logging import LogOptions
    from clipper_agents.settings import Settings
    from clipper_topics.catalogue import Catalogue
    from clipper_topics.connection import KafkaConnection
    from clipper_topics.manifests import ModelManifest

Command = Callable[..., None]
DEFAULT_CONFIG = Path("clipper.toml")


@dataclass(frozen=True, kw_only=True)
class DeploymentContext:
    """The deployment that a command works on: its options, then the environment, then the file, then defaults.

    Without an address it is that of `clipper.toml` in the working directory, or of the `up` that runs there.

    Attributes:
        starts_kafka: Whether the command starts a Kafka where no address is given.
    """

    config: Path | None = None
    bootstrap: str | None = None
    assignments: tuple[str, ...] = ()
    starts_kafka: bool = False

    @cached_property
    def settings(self) -> "Settings":
        from clipper_agents.settings import load_settings
        from clipper_agents.settings.local_deployment import find_running

        given = fields_of(list(self.assignments), "--set", "SECTION.KEY=VALUE, for example router.processes=2")
        overrides = {name: value.strip() for name, value in given.items()}
        if self.bootstrap:
            overrides["kafka.bootstrap"] = self.bootstrap
        settings = load_settings(self.config, os.environ, overrides)
        if settings.kafka.bootstrap is not None or self.starts_kafka:
            return settings
        config = self.config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
        settings = load_settings(config, os.environ, overrides)
        if settings.kafka.bootstrap is not None:
            say(f"using {config}", stderr=True)
        elif running := find_running():
            say(f"using {running['kafka.bootstrap']}, where `up` runs in this folder", stderr=True)
            settings = load_settings(config, os.environ, running | overrides)
        return settings

    @property
    def kafka(self) -> "KafkaConnection":
        return self.settings.connection(os.environ)

    @property
    def catalogue(self) -> "Catalogue":
        return self.settings.catalogue

    def control_state(self) -> "ControlState":
        from clipper_agents.control.state import read_control

        return asyncio.run(read_control(self.kafka, self.catalogue))

    def ensure_topics(self, models: "Sequence[ModelManifest]") -> "TopicsReport":
        """Create its topics that are missing, with those of the models; tell which are not as they should be."""
        from clipper_agents.kafka.topics import ensure_topics

        report = asyncio.run(ensure_topics(self.kafka, self.catalogue, models, self.settings.topic_creation))
        for line in report.advice:
            say(f"warning: {line}", stderr=True)
        return report


@dataclass(frozen=True, kw_only=True)
class ChangeRequest:
    """A change of a deployment's registry; `revision` is the application's that the user saw."""

    deployment: DeploymentContext
    signature: "Signature"
    revision: int | None = None
    as_json: bool = False

    def make(self, decide: "Callable[[ControlState], Plan]", application: str | None = None) -> bool:
        """Decide on what the control topic says, write it, print it, and return whether anything was written."""
        from clipper_agents.control.writer import change_control

        seen = self.seen(application)
        target = self.deployment.kafka, self.deployment.catalogue
        written = asyncio.run(change_control(*target, decide, self.signature, seen=seen))
        self.print(written)
        return bool(written)

    def seen(self, application: str | None) -> dict[str, int]:
        return {} if self.revision is None or application is None else {application: self.revision}

    def print(self, written: "Plan") -> None:
        from clipper_agents.control.manifest_text import written_lines

        print_json(*written.changes) if self.as_json else say(*written_lines(written))


def signature(by: str | None, why: str) -> "Signature":
    """Who makes a change, and why."""
    from clipper_agents.control.change_records import Signature

    return Signature(by=by, why=why) if by else Signature(why=why)


def _deployment(config: ConfigFile = None, bootstrap: Bootstrap = None, assignments: Set = None) -> DeploymentContext:
    return DeploymentContext(config=config, bootstrap=bootstrap, assignments=tuple(assignments or ()))


def _logs(log_level: LogLevel = None, log_format: LogFormat = None) -> "LogOptions":
    from clipper_agents.observability.logging import LogOptions

    return LogOptions(log_level, log_format)


def _new(deployment: DeploymentContext, why: Why = "", by: By = None, as_json: Json = False) -> ChangeRequest:
    return ChangeRequest(deployment=deployment, signature=signature(by, why), as_json=as_json)


def _change(
    deployment: DeploymentContext, why: Why = "", by: By = None, revision: Revision = None, as_json: Json = False
) -> ChangeRequest:
    return replace(_new(deployment, why, by, as_json), revision=revision)


def _with_options(parameter: str, make: Callable[..., Any]) -> Callable[[Command], Command]:
    """A decorator that gives a command the parameters of `make` as options, and its result as `parameter`."""
    added = inspect.signature(make).parameters

    def decorate(command: Command) -> Command:
        def run(**options: Any) -> None:
            made = make(**{name: options.pop(name) for name in added})
            command(**{parameter: made}, **options)

        own = inspect.signature(command).parameters.values()
        parameters = [
            each.replace(kind=each.KEYWORD_ONLY)
            for each in (*(each for each in own if each.name != parameter), *added.values())
        ]
        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which typer reads
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


with_deployment = _with_options("deployment", _deployment)
"""Gives a command the options that name a deployment, and that as its parameter `deployment`."""

with_logs = _with_options("logs", _logs)
"""Gives a command the options of its logs, and those as its parameter `logs`."""


def with_new(command: Command) -> Command:
    """Give a command the options of a change of what is not there yet, and that as its parameter `change`."""
    return with_deployment(_with_options("change", _new)(command))


def with_change(command: Command) -> Command:
    """Give a command the options of a change, and that as its parameter `change`."""
    return with_deployment(_with_options("change", _change)(command))
