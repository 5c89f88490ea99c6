"""The reports of one process about itself, or about the hosts that it supervises, on the hosts topic."""

import socket
import time
from textwrap import shorten

from clipper_agents.control.newest_records import NewestRecords
from clipper_topics import codec
from clipper_topics.host_report import HostReport, report_key

REASON_CHARACTERS = 500
ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (what it listens on, and no address to ask at)


def one_line(reason: object) -> str:
    """Return a reason as a report has it: one line of limited length.

    >>> one_line("no such file:" + chr(10) + "  model.skops")
    'no such file: model.skops'
    """
    return shorten(str(reason), REASON_CHARACTERS, placeholder="...") or "no reason was given"


def address_of(listens_on: str, port: int, here: str | None = None) -> str:
    """Where others find what listens on this address: if on all addresses, `here`, or at the name of this machine.

    >>> address_of("127.0.0.1", 9100), address_of("::1", 9100)
    ('127.0.0.1:9100', '[::1]:9100')
    """
    host = (here or socket.gethostname()) if listens_on in ANYWHERE else listens_on
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class HostReports(NewestRecords):
    """Writes reports: of a host only the newest."""

    def put(self, report: HostReport) -> None:
        """Write the report as soon as a broker accepts it."""
        if not report.at_ms:
            report.at_ms = int(time.time() * 1000)
        self.write(report_key(report.model, report.instance), codec.host_reports.encode(report))

    def withdraw(self, model: str, instance: str) -> None:
        self.write(report_key(model, instance), None)
