"""`clipper-stream replay`: what can be done with logged traffic; each command has a module of its own."""

import typer

from clipper_agents.cli.replay_restore import restore
from clipper_agents.cli.replay_verify import verify

replay = typer.Typer(name="replay", no_args_is_help=True, help="Fold logged traffic again: verify, restore, evaluate.")
replay.command("verify", epilog="Example: clipper-stream replay verify digits")(verify)
replay.command("restore", epilog="Example: clipper-stream replay restore digits --at 2h --dry-run")(restore)
