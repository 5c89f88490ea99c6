import pytest

from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_stream.evaluation.candidates.candidate import Ensemble, FixedPolicy, LearningPolicy, OneModel
from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
from clipper_stream.evaluation.log.ensembles import Answering
from clipper_stream.selection.state import ModelTotals, SelectionState

MODELS = ["svm:1", "knn:1"]


def parse(text, **given):
    return parse_candidate(text, MODELS, known=["svm:2"], **given)


def test_a_policy_learns_on_the_way():
    candidate = parse("exp3:eta=0.2,exploration=0.1")
    assert isinstance(candidate, LearningPolicy)
    assert (candidate.policy.eta, candidate.policy.exploration, candidate.models) == (0.2, 0.1, ("svm:1", "knn:1"))  # type: ignore[attr-defined]


def test_a_frozen_one_does_not():
    candidate = parse("frozen exp3")
    assert isinstance(candidate, FixedPolicy)


@pytest.mark.parametrize("text", ["single", "split:svm:1=0.9,knn:1=0.1", "single:model=knn:1"])
def test_one_that_never_learns_is_a_fixed_one(text):
    candidate = parse(text)
    assert isinstance(candidate, FixedPolicy)
    assert candidate.name == f"frozen {text}"


def test_a_policy_may_choose_among_other_models():
    assert parse("exp3 of svm:2+knn:1").models == ("svm:2", "knn:1")
    assert parse("frozen exp3:eta=1 of svm:2").models == ("svm:2",)


@pytest.mark.parametrize("text", ["svm:2", "model svm:2", " model  svm:2 "])
def test_a_model_is_named_with_or_without_saying_so(text):
    assert parse(text) == OneModel(model="svm:2")


def test_an_ensemble_combines_as_the_application_does():
    answering = Answering(combiner="mean", loss="absolute", default_output=0.0, confidence_threshold=0.5)
    assert parse("ensemble svm:1+svm:2", answering=answering) == Ensemble(
        weights={"svm:1": 1.0, "svm:2": 1.0}, answering=answering
    )


def test_an_ensemble_may_have_weights_and_options_of_its_own():
    candidate = parse("ensemble svm:1=2+knn:1=0.5,combiner=mean,threshold=0.6,default=none")
    assert candidate.weights == {"svm:1": 2, "knn:1": 0.5}
    assert candidate.answering == Answering(combiner="mean", confidence_threshold=0.6, default_output="none")


@pytest.mark.parametrize(
    "text",
    [
        "exp3",
        "exp3:eta=0.2,exploration=0.1",
        "frozen exp3:half_life=50",
        "exp4",
        "model svm:2",
        "ensemble svm:1+knn:1",
        "ensemble svm:1=2+knn:1=1,combiner=mean,threshold=0.6",
    ],
)
def test_the_name_is_the_text_that_it_is_parsed_from(text):
    candidate = parse(text)
    assert candidate.name == text
    assert parse(candidate.name) == candidate


def test_what_was_learned_is_where_a_candidate_begins():
    one = SelectionState({"svm:1": ModelTotals(1.0, 1.0, 1.0, 1.0)})
    states = {(None, 0): one, (None, 3): one, ("north", 2): one}
    assert parse("exp3", states=states).start == states
    frozen = parse("frozen exp3", states=states).states
    assert frozen[None].of("svm:1").count == 2.0
    assert frozen["north"] == one


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (
            "exp33",
            UnknownName,
            r"did you mean 'exp3'\? give a policy \(.*exp3, .*exp4.*\), a model \(svm:1, knn:1, svm:2\)",
        ),
        ("svm:3", UnknownName, "did you mean 'svm:"),
        ("", UnknownName, "give a policy"),
        ("model", InvalidSetting, "model ''"),
        ("model svm:9", InvalidSetting, r"model 'svm:9': did you mean 'svm:\d'\? give one of svm:1, knn:1, svm:2"),
        ("exp3:eta", InvalidSetting, r"'eta' in candidate 'exp3:eta': write NAME=VALUE, as exp3:eta=0.2"),
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
