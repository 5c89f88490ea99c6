import asyncio
import ssl

import pytest
import trustme
from unit.gateway.rig import browser_of, settings_of

from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.settings.sections import GatewaySection
from clipper_gateway import server
from clipper_gateway.server import Gateway


class Context:
    """Says when it has read a certificate."""

    def __init__(self):
        self.read, self._context = asyncio.Event(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def load_cert_chain(self, certfile, keyfile):
        self._context.load_cert_chain(certfile, keyfile)
        self.read.set()


async def test_a_certificate_is_read_again_and_one_that_cannot_be_used_is_not(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(server, "RELOAD_S", 0.001)
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    context = Context()
    certificate.write_text("")
    renewing = asyncio.ensure_future(server._renew(context, str(certificate), str(key)))
    async with asyncio.timeout(30):
        while not caplog.records:
            await asyncio.sleep(0)
        assert not context.read.is_set()
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(certificate)
        await context.read.wait()
    renewing.cancel()
    await asyncio.wait([renewing])
    assert {one.getMessage() for one in caplog.records} == {"the certificate stays that of before"}


@pytest.mark.parametrize(
    ("tls", "told"), [({}, None), ({"tls_certfile": "a.pem", "tls_keyfile": "a.key"}, "max-age=31536000")]
)
async def test_only_a_gateway_with_tls_tells_browsers_to_keep_to_it(tmp_path, tls, told):
    gateway = Gateway(settings_of(tmp_path, GatewaySection(**tls)), ProcessMetrics("gateway"))
    async with browser_of(gateway.app, "http://localhost:8080") as browser:
        for path in ("/livez", "/console/login", "/nowhere"):
            found = await browser.get(path)
            assert (found.headers.get("strict-transport-security"), found.headers["x-content-type-options"]) == (
                told,
                "nosniff",
            )
