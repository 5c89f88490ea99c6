"""A broker that has just started compiles while it serves; the first system would pay for all."""

from rig.measuring import loaded, rows
from rig.session import Session
from rig.systems import SYSTEMS

from clipper_loadgen import LoadPlan

QUERIES, OUTSTANDING = 20_000, 4
"""Some ten thousand requests of each kind: few queries outstanding make many requests of them."""


def warm_broker(here: Session) -> None:
    """Queries through an echo, of which nothing is kept."""
    place = here.place("warm")
    plan = LoadPlan(
        "digits", mode="saturation", queries=QUERIES, outstanding=OUTSTANDING, dataset=rows(QUERIES, seed=99)
    )
    with SYSTEMS["echo"](place) as roots:
        loaded(plan, place, roots, here.broker)
