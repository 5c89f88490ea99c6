"""The say of each model that answered."""

from collections.abc import Iterable, Mapping


def renormalized_weights(answered: Iterable[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Weights of the models that answered, in candidate order, whatever order they answered in.

    Args:
        answered: References of the models that answered.
        weights: Trust in each candidate, in the application's order. One that is not there counts 0, and comes
            after the others by name.

    Returns:
        Their weights, unscaled; 1 for each where all are 0.

    >>> renormalized_weights(["b:1", "a:1"], {"a:1": 0.0, "b:1": 0.0, "c:1": 1.0})
    {'a:1': 1.0, 'b:1': 1.0}
    """
    there = set(answered)
    shares = {model: weight for model, weight in weights.items() if model in there}
    shares.update(dict.fromkeys(sorted(there - shares.keys()), 0.0))
    return shares if any(shares.values()) else dict.fromkeys(shares, 1.0)
