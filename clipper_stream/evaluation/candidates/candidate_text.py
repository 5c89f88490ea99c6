"""Candidates from short texts.

exp3                              a policy that learns on the way, among the application's candidates of each time
exp3:eta=0.2,exploration=0.1      ... with these
split:svm:1=0.9,knn:1=0.1         ... or shares of models
exp3 of svm:1+svm:2               ... among these models only
frozen exp3                       a policy that does what it would do now, and learns nothing more
svm:2, model svm:2                always this model
ensemble svm:1+knn:1              all of these, with equal weights, combined as the application does
ensemble svm:1=2+knn:1=1,combiner=mean,threshold=0.6
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_stream.evaluation.candidates.candidate import (
    OPTIONS,
    Candidate,
    Ensemble,
    FixedPolicy,
    LearningPolicy,
    OneModel,
)
from clipper_stream.evaluation.sequential.replay import Place
from clipper_stream.names import choices
from clipper_stream.selection.registry import POLICIES, SETTLED, make_policy
from clipper_stream.selection.state import SelectionState, merge


def parse_candidate(
    text: str,
    models: Sequence[str],
    *,
    states: Mapping[Place, SelectionState] | None = None,
    known: Sequence[str] = (),
) -> Candidate:
    """Parse a candidate.

    Args:
        text: As in the table above.
        models: The application's models, in its order: where the text names none, a policy chooses among those of them
            that were its candidates then.
        states: What was learned until the log begins, by (context, partition).
        known: Other models that a text may name: versions on trial, retired ones, new ones.

    >>> parse_candidate("split:svm:1=0.9,knn:1=0.1", ["svm:1", "knn:1"]).name
    'frozen split:svm:1=0.9,knn:1=0.1'

    Raises:
        InvalidSetting: the text is none of these; the message says what would be.
        UnknownName: it names a policy that is none.
    """
    every = tuple(dict.fromkeys([*models, *known]))
    asked = text.strip()
    word, _, rest = asked.partition(" ")
    if asked in every or word == "model":
        return OneModel(model=_model(asked if asked in every else rest, every))
    if word == "ensemble":
        return _ensemble(rest.strip(), every)
    frozen = word == "frozen"
    head, of, among = (rest.strip() if frozen else asked).partition(" of ")
    name, _, parameters = head.strip().partition(":")
    if name not in POLICIES:
        forms = (*sorted(POLICIES), *every, "model", "ensemble", "frozen")
        raise UnknownName(f"candidate {text!r}: {choices(name, forms)}, as `ensemble A+B`, or `frozen POLICY`")
    given = _parameters(name, parameters, every)
    named = among.split("+") if of else given.get("shares", ())
    chosen = tuple(_model(each, every) for each in named or models)
    policy = make_policy(name, given)
    if frozen or name in SETTLED:
        return FixedPolicy(policy=policy, models=chosen, named=bool(named), states=_by_context(states or {}))
    return LearningPolicy(policy=policy, models=chosen, named=bool(named), start=states or {})


def _parameters(policy: str, text: str, every: Sequence[str]) -> dict[str, Any]:
    """Parameters; a name that is a model's is a share of it."""
    found: dict[str, Any] = {}
    for name, value in _pairs(f"{policy}:{text}", text) if text else ():
        if ":" in name:
            found.setdefault("shares", {})[_model(name, every)] = value
        else:
            found[name] = value
    return found


def _ensemble(text: str, every: Sequence[str]) -> Ensemble:
    members, _, options = text.partition(",")
    weights: dict[str, float] = {}
    for member in members.split("+"):
        model, equals, weight = member.strip().partition("=")
        weights[_model(model, every)] = _value(weight) if equals else 1.0
    changed: dict[str, Any] = {}
    for name, value in _pairs(f"ensemble {text}", options) if options else ():
        if name not in OPTIONS:
            raise InvalidSetting(f"option {name!r} of an ensemble: {choices(name, OPTIONS)}")
        changed[OPTIONS[name]] = value
    return Ensemble(weights=weights, changed=changed)


def _pairs(whole: str, text: str) -> list[tuple[str, Any]]:
    pairs = []
    for part in text.split(","):
        name, equals, value = part.strip().rpartition("=")
        if not (equals and name and value):
            raise InvalidSetting(f"{part.strip()!r} in candidate {whole!r}: write NAME=VALUE, as exp3:eta=0.2")
        pairs.append((name.strip(), _value(value.strip())))
    return pairs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _model(text: str, every: Sequence[str]) -> str:
    name = text.strip()
    if name in every:
        return name
    raise InvalidSetting(f"model {name!r}: {choices(name, every)}")


def _by_context(states: Mapping[Place, SelectionState]) -> dict[str | None, SelectionState]:
    places = sorted(states, key=lambda place: place[1])
    contexts = dict.fromkeys(context for context, _ in places)
    return {context: merge(states[place] for place in places if place[0] == context) for context in contexts}
