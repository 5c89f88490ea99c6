"""`clipper-stream replay`: what the logs say, and what they would have said."""

import typer

replay = typer.Typer(name="replay", no_args_is_help=True, help="Use logged traffic again.")
