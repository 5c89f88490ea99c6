"""How many decisions a second are read from the logs and from files, and does memory stay within 2 GiB?

    python benchmarks/replay_reading.py --json results/replay_reading.json      # about three minutes
    python benchmarks/replay_reading.py --quick

A log of four partitions by the project's own encoders: `epsilon_greedy` over three models, 2 % audited, 90 % with
feedback. `near`: feedback 2,000 decisions behind its prediction. `far`: all feedback behind all predictions. A decision
is a prediction, its audit and its feedback. `bare` reads the same records with aiokafka in one process and looks at
none of them: what Kafka's client costs. The file has as many decisions as the log, or `--file-decisions` by repeating
them.

Each job is a process of its own that may not reserve more than 4 GiB (RLIMIT_DATA, and so each process that it
starts); the peak of what it uses is to stay below 2 GiB.
CPU is that of all of them, without the broker's. On a machine that does something else, CPU says more than seconds.
"""

from rig import one_thread  # noqa: F401  # isort: skip (before numpy)

import argparse
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rig.decision_log import decisions
from rig.flood import produce
from rig.results import Measures, Summary, Target
from rig.session import Session, parsed, report, said, session, system_options

from clipper_agents.kafka.topics import ensure_topics
from clipper_agents.replay.export import export_log
from clipper_agents.replay.log_reading import KafkaLog
from clipper_topics.catalogue import Catalogue

JOBS = Path(__file__).resolve().parent / "rig/reading_jobs.py"
RATE, CPU, PEAK = "decisions/s", "CPU µs a decision", "peak MiB of a process"
MEASURES: Measures = {
    RATE: lambda run: run["decisions"] / run["seconds"],
    CPU: lambda run: run["cpu_s"] / run["decisions"] * 1e6,
    "decisions/CPU s": lambda run: run["decisions"] / run["cpu_s"],
    PEAK: lambda run: max(run["peak_mib"], run["peak_child_mib"]),
}
LIMIT_MIB = 2048


def main() -> None:
    options = arguments()
    with session(options) as at:
        runs = [said({"system": name, **measured(job)}) for name, job in jobs(options, at)]
    report(options, "decisions read", runs, MEASURES, targets)


def jobs(options: argparse.Namespace, at: Session) -> Any:
    """Rows and what they do; logs and files are made when their turn comes."""
    count, bootstrap = options.decisions, at.connection.bootstrap
    for prefix, delay in (("near", 2_000), ("far", count)):
        catalogue = at.place(prefix).catalogue
        asyncio.run(ensure_topics(at.connection, catalogue))
        produce(at.connection, decisions(count, catalogue, delay=delay))
        common = {"bootstrap": bootstrap, "prefix": catalogue.prefix}
        if prefix == "near":
            yield "bare", {"job": "bare", **common}
            path = exported(at, catalogue, options.file_decisions)
        for processes in (1, 2):
            name = f"{prefix}, {processes} process{'es' if processes > 1 else ''}"
            yield name, {"job": "kafka", **common, "processes": processes}
    yield "file, arrays for estimation", {"job": "estimate", "path": str(path)}
    yield "file, folded", {"job": "fold", "path": str(path)}


def exported(at: Session, catalogue: Catalogue, wanted: int) -> Path:
    """A file of so many decisions: those of the log, again and again, each time with later feedback."""
    log = KafkaLog(kafka=at.connection, catalogue=catalogue, application="digits", loss_kind="zero_one")
    once, path = at.folder / "once.parquet", at.folder / "decisions.parquet"
    facts = export_log(log, once, 2)
    file = pq.ParquetFile(once)
    place = file.schema_arrow.get_field_index("feedback_offset")
    with pq.ParquetWriter(path, file.schema_arrow, compression="zstd") as writer:
        for number in range(max(1, wanted // facts.decisions)):
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                later = pc.add(table["feedback_offset"], number * facts.decisions)
                writer.write_table(table.set_column(place, file.schema_arrow.field(place), later))
        writer.add_key_value_metadata(facts.metadata)
    return path


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """What a job says about itself."""
    done = subprocess.run([sys.executable, str(JOBS), json.dumps(job)], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def targets(found: Summary) -> list[Target]:
    least = {"near, 2 processes": 120_000, "file, arrays for estimation": 1_000_000, "file, folded": 1_000_000}
    return [
        *(Target.of("reading", f"{row}: {RATE}", (found, row, RATE), ">=", bound) for row, bound in least.items()),
        *(
            Target.of("reading", f"{row}: {PEAK}", (found, row, PEAK), "<=", LIMIT_MIB)
            for row in ("near, 2 processes", "far, 2 processes", "file, folded")
        ),
    ]


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--decisions", type=int, default=1_000_000, help="in each log")
    parser.add_argument("--file-decisions", type=int, default=3_000_000, help="in the file")
    return parsed(parser, {"decisions": 5_000, "file_decisions": 10_000})


if __name__ == "__main__":
    main()
