"""Garbage collection in processes that serve."""

import gc

YOUNG_OBJECTS = 200_000
"""Allocated more than freed, before the collector looks: what some ten thousand queries in flight have. At 50,000 it
looked so often that it took 8 % of a router's time under load."""


def settle_memory() -> None:
    """Exempt what was loaded at the start from garbage collection, and collect young objects less often.

    What a query leaves behind is freed by its reference count. A full collection over what libraries and the model have
    loaded took up to a tenth of a second, on the loop.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)
