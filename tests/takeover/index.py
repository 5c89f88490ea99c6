"""The index of decisions of the model: databases by age, as `clipper_agents.router.decision_index` has them."""

from collections.abc import Callable, Sequence

from takeover.state import HORIZON, NOTHING, Age, Feedback, Prediction, Query, is_about, is_repeated

Ages = tuple[Age, ...]


def indexed_upto(ages: Ages) -> int:
    """The last indexed prediction."""
    return max((age.upto for age in ages), default=NOTHING)


def noted_upto(ages: Ages) -> int:
    """The last feedback that is noted."""
    return max((age.noted_upto for age in ages), default=NOTHING)


def notes(ages: Ages) -> dict[int, int]:
    """By offset of a decision, the feedback that counted."""
    return {decision: counted for age in reversed(ages) for decision, counted in age.notes}


def decision_about(ages: Ages, predictions: Sequence[Prediction], told: Feedback) -> int | None:
    """Offset of the decision that feedback is about."""
    return _first(ages, lambda offset: is_about(told, predictions[offset]))


def decision_of(ages: Ages, predictions: Sequence[Prediction], asked: Query) -> int | None:
    """Offset of the decision about a query."""
    return _first(ages, lambda offset: is_repeated(asked, predictions[offset]))


def with_predictions(ages: Ages, predictions: Sequence[Prediction], offsets: Sequence[int]) -> Ages:
    """Index predictions that were read together."""
    if not offsets:
        return ages
    opened = _open(ages, predictions[offsets[-1]].at)
    for offset in offsets:
        new = Query(predictions[offset].query, predictions[offset].queried_at)
        if decision_of(opened, predictions, new) is None:
            opened = (*opened[:-1], opened[-1]._replace(decisions=(*opened[-1].decisions, offset)))
    return (*opened[:-1], opened[-1]._replace(upto=max(indexed_upto(ages), offsets[-1])))


def with_notes(ages: Ages, counted: Sequence[tuple[int, int]], upto: int, at: int) -> Ages:
    """Note which feedback counted; the first one of a decision stays."""
    known, opened = notes(ages), _open(ages, at)
    new = tuple((decision, offset) for decision, offset in counted if decision not in known)
    last = opened[-1]
    return (*opened[:-1], last._replace(notes=last.notes + new, noted_upto=max(noted_upto(ages), upto)))


def without_old(ages: Ages, needed_since: int) -> Ages:
    """Drop ages of which all decisions are older, but never the newest."""
    return (*(age for age in ages[:-1] if (age.number + 1) * HORIZON >= needed_since), *ages[-1:])


def _open(ages: Ages, at: int) -> Ages:
    """The ages with the one last that is written at a time."""
    number = max(at // HORIZON, *(age.number for age in ages), 0)
    if ages and ages[-1].number == number:
        return ages
    return (*ages, Age(number, upto=indexed_upto(ages), noted_upto=noted_upto(ages)))


def _first(ages: Ages, suits: Callable[[int], bool]) -> int | None:
    return next((offset for age in ages for offset in age.decisions if suits(offset)), None)
