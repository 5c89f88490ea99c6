"""`clipper-stream replay`: what can be done with logged traffic; each command has a module of its own."""

import typer

from clipper_agents.cli.replay_evaluate import evaluate
from clipper_agents.cli.replay_export import export
from clipper_agents.cli.replay_produce import produce
from clipper_agents.cli.replay_restore import restore
from clipper_agents.cli.replay_score import score
from clipper_agents.cli.replay_verify import verify

replay = typer.Typer(
    name="replay",
    no_args_is_help=True,
    help="Use logged traffic again: verify, restore, export, score, evaluate, produce.",
)
replay.command("verify", epilog="Example: clipper-stream replay verify digits")(verify)
replay.command("restore", epilog="Example: clipper-stream replay restore digits --at 2h --dry-run")(restore)
replay.command("export", epilog="Example: clipper-stream replay export digits --since 2h --out digits.parquet")(export)
replay.command(
    "score",
    epilog="Example: clipper-stream replay score digits.parquet --model svm:2 --uri models/svm-2.skops --shape 64 "
    "--out svm-2.parquet",
)(score)
replay.command(
    "evaluate",
    epilog="Example: clipper-stream replay evaluate digits --since 1d --candidate thompson --candidate svm:1 "
    "--report digits.html",
)(evaluate)
replay.command("produce", epilog="Example: clipper-stream replay produce --since 1h --to staging --speed 10")(produce)
