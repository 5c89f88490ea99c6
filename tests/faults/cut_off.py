"""A broker with a second door, behind which the way to it and the way back can each be cut."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.properties import LOOPBACK, free_port
from clipper_topics.connection import KafkaConnection

CHUNK = 1 << 16


@dataclass
class Door:
    """Forwards connections to a port, in both directions; what is cut waits, as packets that are sent again do.

    Attributes:
        to_broker: Set while what clients send arrives.
        from_broker: Set while what the broker sends arrives.
    """

    target: int
    to_broker: threading.Event = field(default_factory=threading.Event)
    from_broker: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = self._listener.getsockname()[1]
        self.mend()
        threading.Thread(target=self._accept, daemon=True).start()

    def mend(self) -> None:
        self.to_broker.set()
        self.from_broker.set()

    def close(self) -> None:
        self._listener.close()
        self.mend()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client = self._listener.accept()[0]
                try:
                    broker = socket.create_connection((LOOPBACK, self.target))
                except OSError:
                    client.close()
                    continue
                for one, other, is_open in ((client, broker, self.to_broker), (broker, client, self.from_broker)):
                    threading.Thread(target=_forward, args=(one, other, is_open), daemon=True).start()


def _forward(one: socket.socket, other: socket.socket, is_open: threading.Event) -> None:
    with suppress(OSError):
        while data := one.recv(CHUNK):
            is_open.wait()
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(socket.SHUT_RDWR)


@contextmanager
def broker_with_a_door() -> Iterator[tuple[KafkaConnection, KafkaConnection, Door]]:
    """A broker: how others reach it, how it is reached through the door, and the door."""
    port, inner, controller = free_port(), free_port(), free_port()
    door = Door(inner)
    ports = iter((controller,))
    listeners = f"PLAINTEXT://{LOOPBACK}:{port},DOOR://{LOOPBACK}:{inner},CONTROLLER://{LOOPBACK}:{controller}"
    properties = {
        "listeners": listeners,
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port},DOOR://{LOOPBACK}:{door.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,DOOR:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }
    broker = EmbeddedBroker(port=port, extra_properties=properties, ports=lambda: next(ports))
    try:
        with broker:
            yield broker.connection, KafkaConnection(f"{LOOPBACK}:{door.port}"), door
    finally:
        door.close()
