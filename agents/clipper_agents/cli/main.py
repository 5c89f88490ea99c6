"""The program: its commands, and what an error looks like from outside."""

import logging
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from clipper_agents import exits
from clipper_agents.cli.application import application
from clipper_agents.cli.apply import apply, export
from clipper_agents.cli.broker import broker
from clipper_agents.cli.dead_letters import dead_letters
from clipper_agents.cli.demo import demo
from clipper_agents.cli.gateway import gateway, keys
from clipper_agents.cli.init import init
from clipper_agents.cli.kafka import kafka
from clipper_agents.cli.loadgen import loadgen
from clipper_agents.cli.model import model
from clipper_agents.cli.predict import feedback, predict
from clipper_agents.cli.replay import replay
from clipper_agents.cli.selection import selection
from clipper_agents.cli.status import status
from clipper_agents.cli.terminal import say
from clipper_agents.cli.topics import topics
from clipper_agents.cli.up import up
from clipper_agents.cli.worker import worker

app = typer.Typer(
    name="clipper-stream",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs 0.3 s, and usage errors would be boxes instead of lines
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 wrong setup (settings, model, connection), "
    "5 to 7 query or feedback not used, 130 interrupted.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"clipper-stream {version('clipper-stream')}")
        raise typer.Exit


@app.callback()
def clipper_stream(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Prediction serving on Kafka topics: deadlines, adaptive batching, bandit model selection.

    Start with clipper-stream demo. Then write models and applications of your own into the clipper.toml that
    clipper-stream init makes, start them with clipper-stream up, and ask with clipper-stream predict.
    """


def _add(command: Callable[..., None], short: str, example: str) -> None:
    app.command(short_help=short, epilog=f"Example: clipper-stream {example}")(command)


_add(demo, "Watch a pipeline decide, learn and recover, in two minutes.", "demo --open")
_add(init, "Write a small project to start from.", "init my-project")
_add(up, "Start broker, routers, model hosts and gateway on this machine.", "up --config clipper.toml")
_add(predict, "Ask one question.", "predict sums '[1, 2, 3]' --bootstrap localhost:9092")
_add(feedback, "Say what was true about a query.", "feedback 2-5f0c9e --label 6 --bootstrap localhost:9092")
_add(apply, "Publish the applications and models of a configuration.", "apply --bootstrap localhost:9092")
_add(export, "Write the whole registry as one file.", "export --out registry.toml --bootstrap localhost:9092")
_add(broker, "Run an Apache Kafka without Docker.", "broker --port 9092 --data-dir data/broker")
_add(
    loadgen,
    "Put load on an application, and report.",
    "loadgen --application sums --rate 500 --bootstrap localhost:9092",
)
_add(status, "Show what runs, what waits and what is wrong.", "status --bootstrap localhost:9092")
_add(gateway, "Serve HTTP and gRPC in front of the topics.", "gateway --bootstrap localhost:9092")

app.add_typer(model, short_help="Deploy, compare, promote and retire versions of models.")
app.add_typer(application, short_help="Create, look at, change and delete applications.")
app.add_typer(kafka, short_help="Check whether a Kafka cluster can be used.")
app.add_typer(topics, short_help="Create or list the topics.")
app.add_typer(dead_letters, short_help="Look at records that could not be used; send them again.")
app.add_typer(selection, short_help="Look at what an application has learned; set it back.")
app.add_typer(replay, short_help="Use logged traffic again: verify, evaluate, and more.")
app.add_typer(keys, short_help="Make, list and revoke API keys of the gateway.")
app.add_typer(worker, short_help="Run one router, host or steward process, or all hosts.")


def run() -> None:
    """Entry point of `clipper-stream`: run a command, end with one of the codes in `exits`."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: list[str], program: Callable[[list[str]], object] = app) -> int:
    """Run a command, and return the exit code; for an error of ours a line a problem has gone to standard error."""
    from clipper_stream.errors import ClipperError, SetupError
    from clipper_topics.connection import InvalidConnection
    from clipper_topics.errors import UnknownRowVersion

    # a command that configures no logging says itself what is wrong; libraries do not say it fifty times before
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        program(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exits.OK
    except (SetupError, InvalidConnection, UnknownRowVersion) as error:
        return _tell(error, exits.SETUP)
    except ClipperError as error:
        return _tell(error, exits.FAILURE)
    except (KeyboardInterrupt, EOFError):
        return exits.INTERRUPTED
    except Exception:  # noqa: BLE001 - whatever it is, the exit code and the last line are the program's
        traceback.print_exc()
        say("error: this is a defect of clipper-stream: please report the lines above", stderr=True)
        return exits.FAILURE
    return exits.OK


def _tell(error: Exception, code: int) -> int:
    from clipper_agents.observability.logging import error_line

    for line in str(error).splitlines():
        say(error_line(line), stderr=True)
    return code


if __name__ == "__main__":
    run()
