"""One caller at its worst on everything that callers share, at once; another, of another address, is served."""

import asyncio
import contextlib
import resource
import sys
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from open_inference.grpc import protocol as oip
from open_inference.grpc.service import GRPCInferenceServiceStub
from unit.gateway.rig import key_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
RIGHTS = ("predict", "feedback", "read", "operate")
MOST_MIB = 250


class Attacked:
    """A gateway under attack: connections of the hostile caller, which are kept, and a client of another one."""

    def __init__(self, process, port, grpc_port, keys):
        self.process, self.port, self.keys = process, port, keys
        self.channel = grpc.aio.insecure_channel(f"{HERE}:{grpc_port}")
        transport = httpx.AsyncHTTPTransport(local_address=ELSEWHERE)
        headers = {"x-api-key": keys["other"]}
        self.client = httpx.AsyncClient(
            transport=transport, base_url=f"http://{HERE}:{port}", headers=headers, timeout=60
        )
        self.open = []

    async def connected(self):
        reader, writer = await asyncio.open_connection(HERE, self.port)
        self.open.append(writer)
        return reader, writer

    async def sends(self, count, method, path, body=b"", *, length=None, **headers):
        """Send so many requests on connections of their own, whose answers nobody reads."""
        headers = {"host": HERE, "x-api-key": self.keys["hostile"], "content-length": length or len(body)} | headers
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        sent = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body
        for _ in range(count):
            with contextlib.suppress(OSError):
                _, writer = await self.connected()
                writer.transport.pause_reading()
                writer.write(sent)

    async def statuses(self, count, path, body):
        """Of so many predictions of the hostile caller at once."""
        headers, limits = {"x-api-key": self.keys["hostile"]}, httpx.Limits(max_connections=count)
        url = f"http://{HERE}:{self.port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60) as client:
            found = await asyncio.gather(*(client.post(path, content=body) for _ in range(count)))
        return [one.status_code for one in found]

    def peak_mib(self):
        (line,) = [one for one in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if "VmHWM" in one]
        return int(line.split()[1]) / 1024

    async def is_served(self, requests=200):
        """The other caller's requests of all kinds, each of which succeeds."""
        path, body = "/v1/applications/digits/predict", b'{"input":[1,2]}'
        for number in range(requests):
            assert (found := await self.client.post(path, content=body)).status_code == 200, found.text
            if number % 10 == 0:
                assert (
                    await self.client.get(f"/v1/queries/known-{number}?application=digits&wait_s=5")
                ).status_code == 200
                assert (await self.client.get("/console")).status_code == 200
                assert (await self.client.get("/readyz")).status_code == 200
        signed_in = await self.client.post("/console/login", data={"key": self.keys["other"]})
        assert (signed_in.status_code, "set-cookie" in signed_in.headers) == (303, True)
        cookie = signed_in.headers["set-cookie"].partition(";")[0]
        assert (await self.client.get("/console", headers={"x-api-key": "", "cookie": cookie})).status_code == 200
        async with self.client.stream("GET", "/console/live?page=/console") as live:
            assert live.status_code == 200
        ready = await GRPCInferenceServiceStub(self.channel).ServerReady(oip.ServerReadyRequest(), timeout=60)
        assert ready.ready
        return cookie


@pytest.fixture
async def attacked(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    keys = {name: key_in(tmp_path / "keys.json", name, *RIGHTS) for name in ("hostile", "other")}
    script = Path(__file__).with_name("attacked_gateway.py")
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, tmp_path, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            env={"PYTHONPATH": str(script.parents[2]), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        _, port, grpc_port = (await process.stdout.readline()).split()
        attacked = Attacked(process, int(port), int(grpc_port), keys)
        yield attacked
        for writer in attacked.open:
            writer.transport.abort()
        await attacked.channel.close()
        await attacked.client.aclose()
        process.kill()
        await process.communicate()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_one_caller_at_its_worst_leaves_another_served(attacked):
    cookie = await attacked.is_served(20)
    predict = "/v1/applications/digits/predict"
    await attacked.sends(200, "GET", "/v1/queries/unknown?application=digits&wait_s=60")
    await attacked.sends(100, "GET", "/console/queries?id=unknown&application=digits")
    await attacked.sends(60, "GET", "/console/dead-letters")
    await attacked.sends(60, "POST", "/console/actions/promote/preview", b"application=digits&model=a:1")
    await attacked.sends(150, "GET", "/console/live?page=/console")
    await attacked.sends(200, "POST", predict, b'{"input":[', length=2**22)
    await attacked.sends(200, "POST", predict, b"1\r\n{\r\n", transfer_encoding="chunked", length="")
    await attacked.sends(400, "POST", predict, b'{"input":"large"}')
    await attacked.sends(300, "POST", predict, b'{"input":"hang"}')
    for wrong in range(30):
        await attacked.sends(1, "POST", "/console/login", b"key=cs_wrong-%d" % wrong)
    await attacked.sends(100, "POST", "/console/login", f"key={attacked.keys['hostile']}".encode())
    watches = [HealthStub(attacked.channel).Watch(HealthCheckRequest()) for _ in range(100)]
    await attacked.is_served()
    signed_in = await attacked.client.get("/console", headers={"x-api-key": "", "cookie": cookie})
    assert signed_in.status_code == 200
    for watch in watches:
        watch.cancel()
    assert attacked.peak_mib() < MOST_MIB


async def test_idle_connections_of_one_address_leave_others_served(attacked):
    for _ in range(8_000):
        with contextlib.suppress(OSError):
            await attacked.connected()
    await attacked.is_served()
    assert attacked.peak_mib() < MOST_MIB


async def test_bodies_and_answers_of_one_caller_are_bounded_in_memory(attacked):
    body = b'{"input":[' + b"0.12345678901234567," * 110_000 + b"0.5]}"
    statuses = await attacked.statuses(100, "/v1/applications/digits/predict", body)
    assert {*statuses} <= {200, 429}
    await attacked.sends(1_500, "POST", "/v1/applications/digits/predict", b'{"input":"large"}')
    await attacked.is_served(20)
    assert attacked.peak_mib() < MOST_MIB
