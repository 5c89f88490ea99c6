import pytest

from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_stream.evaluation.candidates.candidate import Ensemble, FixedPolicy, LearningPolicy, OneModel
from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState

MODELS = ("svm:1", "knn:1")
ALIKE, UNLIKE = {"svm:1": 1.0, "svm:2": 1.0}, {"svm:1": 2.0, "knn:1": 0.5}
SHARES = {"svm:1": 0.9, "knn:1": 0.1}
SURE = dict(combiner="mean", default_output="none", confidence_threshold=0.6)


def parse(text, **given):
    return parse_candidate(text, MODELS, known=["svm:2"], **given)


def learning(name, models=None, **parameters):
    return LearningPolicy(policy=make_policy(name, parameters), models=models or MODELS, named=models is not None)


def frozen(name, models=None, **parameters):
    return FixedPolicy(policy=make_policy(name, parameters), models=models or MODELS, named=models is not None)


@pytest.mark.parametrize(
    ("text", "expected", "name"),
    [
        ("exp3", learning("exp3"), "exp3"),
        ("exp4", learning("exp4"), "exp4"),
        ("exp3:eta=0.2,exploration=0.1", learning("exp3", eta=0.2, exploration=0.1), "exp3:eta=0.2,exploration=0.1"),
        ("exp3 of svm:2+knn:1", learning("exp3", ("svm:2", "knn:1")), "exp3"),
        ("frozen exp3:half_life=50", frozen("exp3", half_life=50), "frozen exp3:half_life=50"),
        ("frozen exp3:eta=1 of svm:2", frozen("exp3", ("svm:2",), eta=1), "frozen exp3:eta=1"),
        ("single", frozen("single"), "frozen single"),
        ("single:model=knn:1", frozen("single", model="knn:1"), "frozen single:model=knn:1"),
        ("split:svm:1=0.9,knn:1=0.1", frozen("split", MODELS, shares=SHARES), "frozen split:svm:1=0.9,knn:1=0.1"),
        *((text, OneModel(model="svm:2"), "model svm:2") for text in ("svm:2", "model svm:2", " model  svm:2 ")),
        ("ensemble svm:1+svm:2", Ensemble(weights=ALIKE), "ensemble svm:1+svm:2"),
        (
            "ensemble svm:1=2+knn:1=0.5,combiner=mean,threshold=0.6,default=none",
            Ensemble(weights=UNLIKE, changed=SURE),
            "ensemble svm:1=2+knn:1=0.5,combiner=mean,threshold=0.6,default=none",
        ),
    ],
)
def test_a_text_is_a_candidate_whose_name_is_again_a_text(text, expected, name):
    candidate = parse(text)
    assert candidate == expected
    assert candidate.name == name
    assert parse(candidate.name).name == name


def test_what_was_learned_is_where_a_candidate_begins():
    one = SelectionState({"svm:1": ModelTotals(1.0, 1.0, 1.0, 1.0)})
    states = {(None, 0): one, (None, 3): one, ("north", 2): one}
    assert parse("exp3", states=states).start == states
    begun = parse("frozen exp3", states=states).states
    assert begun[None].of("svm:1").count == 2.0
    assert begun["north"] == one


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (
            "exp33",
            UnknownName,
            r"mean exp3\? use one of .*exp3, .*exp4, .*svm:1, knn:1, svm:2, model, ensemble",
        ),
        ("svm:3", UnknownName, "did you mean svm:"),
        ("", UnknownName, "use one of"),
        ("model", InvalidSetting, "model ''"),
        ("model svm:9", InvalidSetting, r"'svm:9': did you mean svm:\d\? use one of svm:1, knn:1, svm:2"),
        ("exp3:eta", InvalidSetting, r"'eta' in candidate 'exp3:eta': write NAME=VALUE"),
        ("exp3:eta=", InvalidSetting, "'eta='"),
        ("exp3:eat=0.2", InvalidSetting, "parameter 'eat'"),
        ("exp3:eta=-1", InvalidSetting, "eta is -1"),
        ("exp3:eta=fast", InvalidSetting, "eta is 'fast'"),
        ("exp3 of svm:1+tree:1", InvalidSetting, "model 'tree:1'"),
        ("split:tree:1=1", InvalidSetting, "model 'tree:1'"),
        ("exp3:svm:1=1", InvalidSetting, "parameter 'shares'"),
        ("ensemble svm:1", InvalidSetting, "at least two models"),
        ("ensemble svm:1=0+knn:1=0", InvalidSetting, "a weight above 0"),
        ("ensemble svm:1=-1+knn:1", InvalidSetting, "weight of svm:1"),
        ("ensemble svm:1=x+knn:1", InvalidSetting, "weight of svm:1 is 'x'"),
        ("ensemble svm:1+knn:1,colour=red", InvalidSetting, "use one of combiner, threshold, default"),
        ("ensemble svm:1+knn:1,combiner=median", UnknownName, "mean, vote"),
        ("ensemble svm:1+knn:1,threshold=2", InvalidSetting, "threshold"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(text, error, words):
    with pytest.raises(error, match=words):
        parse(text)
