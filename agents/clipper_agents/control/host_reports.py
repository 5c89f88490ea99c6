"""The reports of one process about itself, or about the hosts that it supervises, on the hosts topic."""

import socket
import time

from clipper_agents.control.newest_records import NewestRecords
from clipper_topics import codec
from clipper_topics.host_report import HostReport, report_key

LONGEST_TEXT = 500
"""Characters of what somebody says of himself, or gave as a reason."""
ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (what it listens on, and no address to ask at)


def one_line(text: object) -> str:
    r"""Somebody else's text as a report, or a terminal, may have it: printable, in one line, not too long.

    >>> one_line("bad\x1b[2J\n model")
    'bad [2J model'
    """
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    return plain if len(plain) <= LONGEST_TEXT else f"{plain[: LONGEST_TEXT - 3]}..."


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
        if not report.at_ms:
            report.at_ms = int(time.time() * 1000)
        self.write(report_key(report.model, report.instance), codec.host_reports.encode(report))

    def withdraw(self, model: str, instance: str) -> None:
        self.write(report_key(model, instance), None)
