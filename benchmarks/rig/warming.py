"""A broker that has just started compiles while it serves; the first system would pay for all."""

from rig.measuring import loaded, rows
from rig.session import Session
from rig.systems import SYSTEMS

from clipper_loadgen import LoadPlan

OUTSTANDING = 4
"""Few queries outstanding make many requests of them."""


def warm_broker(here: Session, queries: int) -> None:
    """Queries through an echo, of which nothing is kept."""
    if not queries:
        return
    place = here.place("warm")
    plan = LoadPlan(
        "digits", mode="saturation", queries=queries, outstanding=OUTSTANDING, dataset=rows(queries, seed=99)
    )
    with SYSTEMS["echo"](place) as roots:
        loaded(plan, place, roots, here.broker)
