"""`clipper-stream keys`: who may ask the gateway, in a file of its own."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from clipper_agents.cli.deployment import DEFAULT_CONFIG
from clipper_agents.cli.options import ConfigFile, Json
from clipper_agents.cli.terminal import console, print_json, say, table, when

keys = typer.Typer(name="keys", no_args_is_help=True, help="Make, list and revoke API keys of the gateway.")
DEFAULT_RIGHTS = ("predict", "feedback", "read")
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the key, which logs and `revoke` use.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="Of the keys; absent: gateway.keys_file, or gateway-keys.json here."),
]
Applications = Annotated[
    list[str] | None,
    typer.Option("--application", "-a", metavar="NAME", help="One that the key may use; repeatable, absent: all."),
]
Rights = Annotated[
    list[str] | None,
    typer.Option(
        "--right", metavar="RIGHT", help="predict, feedback, read (absent: these three), operate; repeatable."
    ),
]
Rate = Annotated[float | None, typer.Option(metavar="N", help="Requests a second at most; absent: no bound.")]


@keys.command("create", epilog="Example: clipper-stream keys create shop --application digits --rate 100")
def create_key(
    name: KeyName,
    applications: Applications = None,
    rights: Rights = None,
    rate: Rate = None,
    file: KeyFile = None,
    config: ConfigFile = None,
) -> None:
    """Make a key, and print its secret, this once."""
    path = _key_file(file, config)
    from clipper_gateway.keys import make_key

    now_ms = int(time.time() * 1000)
    rights = rights or [*DEFAULT_RIGHTS]
    say(make_key(path, name, applications=applications or None, rights=rights, rate=rate, now_ms=now_ms))
    say(f"key {name} is in {path}; its secret is not shown again", stderr=True)


@keys.command("list", epilog="Example: clipper-stream keys list --json")
def list_keys(as_json: Json = False, file: KeyFile = None, config: ConfigFile = None) -> None:
    """Print the keys, revoked ones too, without their secrets, which nobody has."""
    path = _key_file(file, config)
    from clipper_gateway.keys import read_keys

    found = read_keys(path)
    if as_json:
        hidden = {"digest"}
        print_json(*({key: getattr(one, key) for key in one.__struct_fields__ if key not in hidden} for one in found))
        return
    rows = [
        (
            one.name,
            ", ".join(one.rights),
            "all" if one.applications is None else ", ".join(one.applications),
            "" if one.rate is None else f"{one.rate:g}",
            when(one.created_ms),
            "" if one.revoked_ms is None else when(one.revoked_ms),
        )
        for one in found
    ]
    headings = ("key", "rights", "applications", "rate", "created", "revoked")
    console().print(table(headings, rows, right=("rate",)) if rows else f"no keys in {path}")


@keys.command("revoke", epilog="Example: clipper-stream keys revoke shop")
def revoke(name: KeyName, file: KeyFile = None, config: ConfigFile = None) -> None:
    """Revoke a key: gateways that run refuse it within a second."""
    path = _key_file(file, config)
    from clipper_gateway.keys import revoke_key

    revoke_key(path, name, int(time.time() * 1000))
    say(f"key {name} revoked")


def _key_file(file: Path | None, config: Path | None) -> Path:
    """The file of the options, of the settings, or else the default; needs no Kafka."""
    from clipper_agents.cli.extras import require_extra
    from clipper_agents.settings import load_settings

    require_extra("gateway", "grpc")
    if file is not None:
        return file
    settings = load_settings(config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None), os.environ)
    return Path(settings.gateway.keys_file or "gateway-keys.json")
