"""Ray Serve: one replica behind its HTTP proxy, `serve.batch` with a fixed size and wait (it has nothing adaptive).

ray_digits.py PORT
"""

import signal
import sys
from pathlib import Path

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

FOLDER = str(Path(__file__).resolve().parent.parent)
BATCH, WAIT_S = 64, 0.002
"""As MLServer's in `mlserver_digits`."""


@serve.deployment(num_replicas=1, max_ongoing_requests=1_000)
class Digits:
    """One label a request of one row."""

    def __init__(self) -> None:
        sys.path.append(FOLDER)  # this class reaches its replica by value, without the module around it
        from models import digits  # noqa: PLC0415

        self._digits = digits

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_S)
    async def predict(self, rows: list[list[float]]) -> list[int]:
        """Labels of the rows of several requests."""
        return self._digits(np.array(rows, np.float32)).tolist()

    async def __call__(self, request: Request) -> list[int]:
        (row,) = (await request.json())["rows"]
        return [await self.predict(row)]


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Digits.bind(), route_prefix="/predict")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        signal.pause()
    finally:
        ray.shutdown()
