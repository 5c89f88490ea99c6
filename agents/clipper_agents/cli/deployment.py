"""What most commands are given: a deployment, and a change of its registry; the options of both stand here once.

    @model.command("promote")
    @with_change
    def promote_model(change: ChangeRequest, ref: Ref) -> None: ...

gives the command the options of `ChangeRequest` in place of the parameter `change`.
"""

import asyncio
import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from clipper_agents.control.change_records import CommittedChange, Signature
    from clipper_agents.control.plan import Plan
    from clipper_agents.control.state import ControlState
    from clipper_agents.settings import Settings
    from clipper_topics.catalogue import Catalogue
    from clipper_topics.connection import KafkaConnection

Command = Callable[..., None]

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration, as examples/clipper.toml.")
]
Bootstrap = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Address of Kafka; before KAFKA_BOOTSTRAP_SERVERS and the configuration."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting, for example router.processes=2; repeatable."),
]
LogLevel = Annotated[
    str | None,
    typer.Option(metavar="LEVEL", help="debug, info, warning or error; before CLIPPER_LOG_LEVEL, default info."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON, for machines.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the history.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who does it; absent: this user.")]
Revision = Annotated[
    int | None,
    typer.Option("--revision", metavar="N", min=0, help="The revision that you saw: refused when it is another."),
]


@dataclass(frozen=True, kw_only=True)
class DeploymentContext:
    """The deployment that a command works on: its options, then the environment, then the file, then defaults.

    Attributes:
        config: The configuration file, when one is named.
        bootstrap: The address of Kafka, when one is named.
        assignments: Settings as SECTION.KEY=VALUE.
    """

    config: Path | None = None
    bootstrap: str | None = None
    assignments: tuple[str, ...] = ()

    @cached_property
    def settings(self) -> "Settings":
        """The settings.

        Raises:
            InvalidSetting: with the file or option, the value and what is allowed.
        """
        from clipper_agents.settings import load_settings

        overrides = dict(_assignment(text) for text in self.assignments)
        if self.bootstrap:
            overrides["kafka.bootstrap"] = self.bootstrap
        return load_settings(self.config, os.environ, overrides)

    @property
    def kafka(self) -> "KafkaConnection":
        """How to reach its Kafka."""
        return self.settings.connection(os.environ)

    @property
    def catalogue(self) -> "Catalogue":
        """Its topics."""
        return self.settings.catalogue

    @property
    def prefix(self) -> str:
        """Prefix of its topics."""
        return self.settings.kafka.prefix

    def with_setting(self, *assignments: str) -> "DeploymentContext":
        """The same deployment with more settings."""
        return replace(self, assignments=(*self.assignments, *assignments))

    def control_state(self) -> "ControlState":
        """What its control topic says now."""
        from clipper_agents.control.state import read_control

        return asyncio.run(read_control(self.kafka, self.catalogue))


@dataclass(frozen=True, kw_only=True)
class ChangeRequest:
    """A change of a deployment's registry, and how its result is printed.

    Attributes:
        deployment: Whose registry.
        signature: Who changes it, and why.
        revision: The application's revision that the user saw; None: any.
        as_json: Whether to print JSON.
    """

    deployment: DeploymentContext
    signature: "Signature"
    revision: int | None = None
    as_json: bool = False

    def make(self, decide: "Callable[[ControlState], Plan]", application: str | None = None) -> None:
        """Decide on what the control topic says, write it, and print what was written.

        Args:
            decide: Makes a plan of the state.
            application: Whose revision the user saw.
        """
        from clipper_agents.control.writer import change_control

        seen = self.seen(application)
        target = self.deployment.kafka, self.deployment.catalogue
        self.print(asyncio.run(change_control(*target, decide, self.signature, seen=seen)))

    def seen(self, application: str | None) -> dict[str, int]:
        """Revision that the user saw, by application."""
        return {} if self.revision is None or application is None else {application: self.revision}

    def print(self, written: "CommittedChange") -> None:
        """Print a line a change and a model, or a JSON object a change."""
        if not self.as_json:
            print(*lines_of(written), sep="\n")
            return
        import msgspec

        for made in written.changes:
            print(msgspec.json.encode(made).decode())


def lines_of(written: "CommittedChange") -> list[str]:
    """A line for each manifest that was written."""
    if not written.plan:
        return ["nothing changed"]
    lines = [f"model {each.ref}{' retired' if each.retired else ''}" for each in written.plan.models]
    for made in written.changes:
        about = f" {made.model}" if made.model else ""
        lines.append(f"application {made.application} revision {made.revision}: {made.command}{about}")
    return [*lines, *(f"model {ref} withdrawn" for ref in written.plan.withdrawn)]


def signature(by: str | None, why: str) -> "Signature":
    """Who makes a change, and why."""
    from clipper_agents.control.change_records import Signature

    return Signature(by=by, why=why) if by else Signature(why=why)


def _deployment(config: ConfigFile = None, bootstrap: Bootstrap = None, assignments: Set = None) -> DeploymentContext:
    return DeploymentContext(config=config, bootstrap=bootstrap, assignments=tuple(assignments or ()))


def _new(
    why: Why = "",
    by: By = None,
    as_json: Json = False,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    assignments: Set = None,
) -> ChangeRequest:
    deployment = _deployment(config, bootstrap, assignments)
    return ChangeRequest(deployment=deployment, signature=signature(by, why), as_json=as_json)


def _change(
    why: Why = "",
    by: By = None,
    revision: Revision = None,
    as_json: Json = False,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    assignments: Set = None,
) -> ChangeRequest:
    return replace(_new(why, by, as_json, config, bootstrap, assignments), revision=revision)


def _with_options(parameter: str, make: Callable[..., Any], **defaults: Any) -> Callable[[Command], Command]:
    """A decorator that gives a command the parameters of `make` as options, and its result as `parameter`."""
    added = inspect.signature(make).parameters

    def decorate(command: Command) -> Command:
        def run(**options: Any) -> None:
            made = make(**{name: options.pop(name) for name in added})
            command(**{parameter: made}, **options)

        own = inspect.signature(command).parameters.values()
        parameters = [
            *_as_options((each for each in own if each.name != parameter), {}),
            *_as_options(added.values(), defaults),
        ]
        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which typer reads
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _as_options(parameters: Iterable[inspect.Parameter], defaults: dict[str, Any]) -> Iterable[inspect.Parameter]:
    for each in parameters:
        yield each.replace(kind=each.KEYWORD_ONLY, default=defaults.get(each.name, each.default))


with_deployment = _with_options("deployment", _deployment)
"""Gives a command the options that name a deployment, and that as its parameter `deployment`."""
with_configured_deployment = _with_options("deployment", _deployment, config=Path("clipper.toml"))
"""The same, with `clipper.toml` of the working directory where no file is named."""
with_new = _with_options("change", _new)
"""Gives a command the options of a change of what is not there yet, and that as its parameter `change`."""
with_change = _with_options("change", _change)
"""Gives a command the options of a change, and that as its parameter `change`."""


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set {text}: write SECTION.KEY=VALUE, for example router.processes=2")
    return name.strip(), value.strip()
