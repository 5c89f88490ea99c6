"""The first batch, before anybody waits for it: lazy imports, allocations and compilers are then done."""

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.model import Model, Rows, WarmsUp
from clipper_stream.models.runner import explain, predict_rows


def warm_up(model: Model, sample: Rows | None) -> str | None:
    """Call the model once, by its own `warm_up` if it has one, or else with the sample; return why that failed.

    To fail is the model's right: a row of zeros need not be a valid input.

    Raises:
        ModelNotLoaded: the model's own `warm_up` raised.
    """
    if not isinstance(model, WarmsUp):
        return predict_rows(model, sample).failed.get(0) if sample is not None else None
    try:
        model.warm_up()
    except BaseException as error:
        what = f"{type(model).__name__}.warm_up() failed, {explain(error)}"
        raise ModelNotLoaded(f"{what}; correct the model, or deploy the version before it") from error
    return None
