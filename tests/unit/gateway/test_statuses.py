import re

import pytest
from sources import ROOT
from unit.gateway.rig import refuses
from unit.gateway.wires import ROW, GrpcWire, HttpWire

from clipper_gateway.errors import STATUSES, Refusal

pytestmark = pytest.mark.usefixtures("one_loop")

ROWS = re.findall(
    r"^\| (\d{3}) \| ([A-Z_]+) \| (.+) \|$", (ROOT / "docs/reference/http-api.md").read_text(), re.MULTILINE
)


def test_the_page_says_what_each_status_means():
    assert [(int(status), code, text) for status, code, text in ROWS] == [
        (status, code.name, text) for status, (code, text) in STATUSES.items()
    ]


@pytest.mark.parametrize(("status", "code"), [(int(status), code) for status, code, _ in ROWS])
async def test_a_refusal_has_the_status_of_the_page_on_both_wires(one_loop, status, code):
    async with HttpWire() as http, GrpcWire() as wire:
        for calls in (http.calls, wire.calls):
            calls.fails = Refusal(status, "why", retry_after_s=2.0, query_id="order-7", reason="late")
        with refuses(status, "why") as found:
            await http.infer(ROW)
        assert found.value.headers.items() >= {"retry-after": "2", "query_id": "order-7", "reason": "late"}.items()
        call = wire.inferred(ROW)
        trailing = dict(await call.trailing_metadata())
        assert ((await call.code()).name, await call.details()) == (code, "why")
        assert trailing.items() >= {"retry-after": "2", "query-id": "order-7", "reason": "late"}.items()
