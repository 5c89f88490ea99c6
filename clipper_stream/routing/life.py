"""One query's way through the table of `query_life`, and the records of it that were read meanwhile."""

from clipper_stream.query_life import Event, State, next_state
from clipper_stream.routing.received import Received


class Life:
    """Where a query is.

    Attributes:
        query: The query.
        state: Its state.
        repeats: Records of the same query read again before it was recorded: answered with the same prediction.

    >>> life = Life(Received(query_id="0-1", application="digits", rows=[[1]], queried_at_s=0.0))
    >>> life.move(Event.REFUSE); life.move(Event.DEFAULT); life.state.name
    'DEFAULTED'
    """

    __slots__ = ("query", "repeats", "state")

    def __init__(self, query: Received) -> None:
        self.query = query
        self.state = State.RECEIVED
        self.repeats: list[Received] = []

    def move(self, event: Event) -> None:
        """Go where the event leads.

        Raises:
            IllegalMove: the event cannot happen in this state.
        """
        self.state = next_state(self.state, event)
