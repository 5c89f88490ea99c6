import asyncio
import io
from dataclasses import replace
from types import SimpleNamespace

from rich.console import Console

from clipper_loadgen.ledger import Ledger
from clipper_loadgen.report import summarise
from clipper_loadgen.terminal import progress_bar, report_table, warnings


def report():
    ledger = Ledger([0.0, 0.1, 0.2])
    for query in range(3):
        ledger.sent(query, began_s=0.1 * query, now_s=0.1 * query)
    ledger.answered(0, 0.01, reason=None)
    ledger.answered(1, 0.12, reason="late")
    return summarise(ledger, application="digits", mode="rate")


def printed(renderable):
    text = io.StringIO()
    Console(file=text, width=100).print(renderable)
    return text.getvalue()


def test_the_table_shows_the_numbers_of_the_report_and_a_dash_where_there_is_none():
    cells = [line.split("│") for line in printed(report_table(report())).splitlines() if "│" in line]
    lines = {name.strip(): value.strip() for _, name, value, _ in cells}
    shown = {"queries sent": "3", "missing": "1", "default outputs": "50.00%", "late": "1"}
    assert lines | shown | {"latency p50": "20.00 ms", "latency p99": "-"} == lines


def test_doubtful_numbers_come_with_a_warning():
    assert warnings(report()) == ["1 queries had no answer; percentiles that fall on them are empty"]
    slow = replace(report(), missing=0, late_p99_ms=15.0, send_failures=2, send_failure="KafkaTimeoutError()")
    assert [text.split(":")[0] for text in warnings(slow)] == [
        "the generator was up to 15.0 ms late (p99)",
        "2 batches could not be written, the first",
    ]


def test_the_progress_bar_leaves_stdout_alone(capsys):
    async def follow():
        with progress_bar("digits") as progress:
            following = asyncio.ensure_future(progress(SimpleNamespace(ledger=Ledger([0.0, 1.0]))))
            await asyncio.sleep(0)
            assert not following.done()
            following.cancel()

    asyncio.run(follow())
    assert capsys.readouterr().out == ""
