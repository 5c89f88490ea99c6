"""What the gateway's tests share: a clock."""


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s
