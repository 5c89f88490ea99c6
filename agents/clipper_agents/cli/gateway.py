"""`clipper-stream gateway`, HTTP and gRPC in front of the topics, and `clipper-stream keys`, of who may call it."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents.cli.deployment import DEFAULT_CONFIG, DeploymentContext, with_deployment, with_logs
from clipper_agents.cli.options import ConfigFile, Json, require_extra
from clipper_agents.cli.terminal import print_records, say
from clipper_agents.cli.worker import EndsWithStdin
from clipper_agents.status.texts import when

if TYPE_CHECKING:
    from clipper_agents.observability.logging import LogOptions


@with_deployment
@with_logs
def gateway(
    deployment: DeploymentContext,
    logs: "LogOptions",
    instance: Annotated[str, typer.Option(metavar="NAME", help="Its name in logs.")] = "gateway",
    ends_with_stdin: EndsWithStdin = False,
) -> None:
    """Serve HTTP and gRPC in front of the topics until Ctrl-C or SIGTERM; the end waits for open calls.

    Prints one line, `ready role=gateway instance=NAME http=URL grpc=HOST:PORT metrics=PORT console=URL`, when it
    serves. It also serves while no Kafka answers, and then says so at `/readyz`.
    """
    from clipper_agents.supervisor.process import end_with_stdin
    from clipper_agents.supervisor.workers import GATEWAY_MODULES

    require_extra("gateway", *GATEWAY_MODULES)
    logs.configure(os.environ)
    if ends_with_stdin:
        end_with_stdin()
    from clipper_gateway.server import run

    settings = deployment.settings
    run(settings.worker(settings.gateway, instance, deployment.kafka))


DAY_MS = 86_400_000
keys = typer.Typer(name="keys", no_args_is_help=True, help="Make, list and revoke API keys of the gateway.")
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the key, as logs have it.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="Of the keys; absent: gateway.keys_file, or gateway-keys.json here."),
]


@keys.command("create", epilog="Example: clipper-stream keys create shop --application digits --rate 100")
def create_key(
    name: KeyName,
    applications: Annotated[
        list[str] | None,
        typer.Option("--application", "-a", metavar="NAME", help="May be used; repeatable, absent: all."),
    ] = None,
    rights: Annotated[
        list[str] | None,
        typer.Option(
            "--right", metavar="RIGHT", help="operate, or predict, feedback, read: those if absent; repeatable."
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(metavar="N", help="Rows and feedbacks a second; else no bound.")] = None,
    days: Annotated[float | None, typer.Option(metavar="N", min=0.0, help="Ends after so many; absent: never.")] = None,
    file: KeyFile = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print its secret, which is kept nowhere."""
    path = _key_file(file, config)
    from clipper_gateway.keys import make_key

    rights = rights or ["predict", "feedback", "read"]
    fields = {"rights": rights, "rate": rate, "ends_ms": None if days is None else _now_ms() + round(days * DAY_MS)}
    say(make_key(path, name, now_ms=_now_ms(), applications=applications or None, **fields))
    say(f"key {name} is in {path}; its secret is not shown again", stderr=True)


@keys.command("list", epilog="Example: clipper-stream keys list --json")
def list_keys(as_json: Json = False, file: KeyFile = None, config: ConfigFile = None) -> None:
    """Print the keys, revoked ones too."""
    path = _key_file(file, config)
    from clipper_gateway.keys import ApiKey, read_keys, read_uses

    used, fields = read_uses(path), [name for name in ApiKey.__struct_fields__ if "digest" not in name]
    found = [{name: getattr(key, name) for name in fields} | {"used_ms": used.get(key.name)} for key in read_keys(path)]
    print_records(found, _key_row, as_json=as_json, otherwise=f"no keys in {path}", right=("rate",))


@keys.command("rotate", epilog="Example: clipper-stream keys rotate shop --overlap-s 86400")
def rotate_key(
    name: KeyName,
    overlap_s: Annotated[
        float, typer.Option(metavar="S", min=0.0, help="The secret before is in force for so many seconds yet.")
    ] = 604_800.0,
    file: KeyFile = None,
    config: ConfigFile = None,
) -> None:
    """Give a key another secret and print it; the one before works on for a while."""
    path = _key_file(file, config)
    from clipper_gateway import keys as key_files

    say(key_files.rotate_key(path, name, overlap_s, _now_ms()))


@keys.command("revoke", epilog="Example: clipper-stream keys revoke shop")
def revoke_key(name: KeyName, file: KeyFile = None, config: ConfigFile = None) -> None:
    """Revoke a key: gateways refuse it within a second."""
    path = _key_file(file, config)
    from clipper_gateway import keys as key_files

    key_files.revoke_key(path, name, _now_ms())
    say(f"key {name} revoked")


def _key_row(key: dict[str, Any]) -> dict[str, str]:
    revoked_ms, rate = key["revoked_ms"], key["rate"]
    return {
        "key": key["name"],
        "applications": "all" if key["applications"] is None else ", ".join(key["applications"]),
        "rights": ", ".join(key["rights"]),
        "rate": "" if rate is None else f"{rate:g}",
        "created": when(key["created_ms"]),
        "used": "" if key["used_ms"] is None else when(key["used_ms"]),
        "ends": "" if key["ends_ms"] is None else when(key["ends_ms"]),
        "state": "in force" if revoked_ms is None else f"revoked {when(revoked_ms)}",
    }


def _now_ms() -> int:
    return int(time.time() * 1000)


def _key_file(file: Path | None, config: Path | None) -> Path:
    require_extra("gateway", "grpc")
    if file is not None:
        return file
    from clipper_agents.settings import load_settings

    settings = load_settings(config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None), os.environ)
    return Path(settings.gateway.keys_file or "gateway-keys.json")
