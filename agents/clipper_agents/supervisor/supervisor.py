"""All children of one process: started together, kept running, ended together."""

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Self

from clipper_agents.supervisor.process import ChildSpec
from clipper_agents.supervisor.supervised_process import ProcessEnvironment, SupervisedProcess
from clipper_stream.errors import UnknownName


def to_stderr(line: str) -> None:
    """Pass a child's line on; standard output stays free for results."""
    sys.stderr.write(f"{line}\n")


class Supervisor:
    """Keeps children by name. As a context manager it leaves none behind.

        async with Supervisor() as supervisor:
            await supervisor.start([ChildSpec(name="router-0", command=(...))])

    Args:
        environment: Backoff, clock and where the children's lines go.

    Attributes:
        on_failure: Called with a child's name and the reason when it has ended by itself, or is given up.
        on_restart: Called with a child's name when it is started again.
    """

    def __init__(self, environment: ProcessEnvironment | None = None) -> None:
        self._environment = environment or ProcessEnvironment(echo=to_stderr)
        self.on_failure: Callable[[str, str], None] = lambda *_: None
        self.on_restart: Callable[[str], None] = lambda _: None
        self._children: dict[str, SupervisedProcess] = {}

    @property
    def children(self) -> dict[str, SupervisedProcess]:
        """The children by name, a copy."""
        return dict(self._children)

    def child(self, name: str) -> SupervisedProcess:
        """The child of this name.

        Raises:
            UnknownName: there is none.
        """
        if name not in self._children:
            raise UnknownName(f"child {name!r}: there is {', '.join(self._children) or 'none'}")
        return self._children[name]

    async def start(self, specs: Iterable[ChildSpec]) -> None:
        """Start children in parallel and wait until all serve.

        Raises:
            ChildNotReady: one of them cannot, the first that fails; the others go on until `stop`.
            UnknownName: a name is taken.
        """
        waits = [asyncio.ensure_future(self._keep(spec).wait_ready()) for spec in specs]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self, *names: str) -> None:
        """End these children, all when none is named, in parallel; each is asked, then killed after its `drain_s`."""
        going = [name for name in (names or tuple(self._children)) if name in self._children]
        await asyncio.gather(*(self._children[name].stop() for name in going))
        for name in going:
            self._children.pop(name, None)

    def kill(self, name: str | None = None) -> None:
        """SIGKILL to one child, which is then started again, or to all when none is named; errors as of `child`."""
        for child in [self.child(name)] if name else self._children.values():
            child.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _keep(self, spec: ChildSpec) -> SupervisedProcess:
        if spec.name in self._children:
            raise UnknownName(f"child {spec.name!r} runs already: give another name")
        child = self._children[spec.name] = SupervisedProcess(spec, self._environment, self.on_failure, self.on_restart)
        return child
