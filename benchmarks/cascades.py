"""What does a cascade save at which loss, and how far off is the loss that is expected before labels?

    python benchmarks/cascades.py --page benchmarks/results/cascades.md    # three minutes; seeded; and the page
    python benchmarks/cascades.py --no-install                             # without NannyML, unless it is there
    python benchmarks/cascades.py --quick                                  # its numbers say nothing

**Cascades.** Both models are fitted in three folds and predict what they have not seen. The queries come in random
order, each once, with its label; losses and calls are those of the second half, so the threshold was learned from other
queries. Asked: share of the queries that ask the dear model; that share of its cost remains. The difference is to the
dear model alone, on the same queries, with its 95 % interval over the rows.

**Loss before labels.** A model is fitted, 3,000 labelled answers (2,000 of digits) are the reference, and then each 500
answers are estimated before any of their labels. Ours learns from labels 500 answers late; NannyML's CBPE is fitted to
the reference once. Error: mean distance of the estimate from the share of errors in the 500; ours where it is shown,
CBPE's of all, and where ours is shown. Covered: of those shown, by the interval.

- `same`: nothing changes; `harder`: unsure queries grow frequent; `forest`: the same of a random forest
- `labels change`: three of ten labels are others from the middle on
- `noise`: digits, to whose pixels more and more noise is added
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rig.contenders import RIVALS, NotInstalled, rival_python
from rig.session import page_options, parsed, write_page
from river.datasets import ImageSegments, Phishing
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.svm import SVC

from clipper_stream.selection.confidence import BINS, Calibration, calibrated, confidence_bin, expected_loss
from clipper_stream.selection.policies.cascade import Cascade
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import SelectionState

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
CHEAP, DEAR = MODELS = ("cheap:1", "dear:1")
BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
CHUNK = 500


# --- cascades -------------------------------------------------------------------------------------------------------
class Answers(NamedTuple):
    """Of each query the cheap model's confidence and the losses of both, (n,)."""

    confidence: Floats
    cheap: Floats
    dear: Floats


def digits() -> Answers:
    return out_of_sample(
        load_digits(return_X_y=True), LogisticRegression(C=0.01, max_iter=300), SVC(gamma=0.001, C=10.0)
    )


def segments() -> Answers:
    return out_of_sample(read(ImageSegments()), scaled_regression(), RandomForestClassifier(100, random_state=0))


def phishing() -> Answers:
    return out_of_sample(read(Phishing()), scaled_regression(), RandomForestClassifier(100, random_state=0))


DATA: dict[str, tuple[str, Callable[[], Answers]]] = {
    "digits": ("logistic regression, support vectors", digits),
    "image segments": ("logistic regression, random forest", segments),
    "phishing": ("logistic regression, random forest", phishing),
}


def read(data: Iterable[tuple[dict[str, float], Any]]) -> Rows:
    """Data of river as arrays, with labels 0, 1, ..."""
    inputs, labels = zip(*data, strict=True)
    return np.array([[*row.values()] for row in inputs], float), LabelEncoder().fit_transform(labels)


def scaled_regression() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))


def out_of_sample(rows: Rows, cheap: Any, dear: Any) -> Answers:
    inputs, labels = rows
    folds = KFold(3, shuffle=True, random_state=1)
    probabilities = cross_val_predict(cheap, inputs, labels, cv=folds, method="predict_proba")
    wrong = cross_val_predict(dear, inputs, labels, cv=folds) != labels
    return Answers(
        probabilities.max(axis=1), (probabilities.argmax(axis=1) != labels).astype(float), wrong.astype(float)
    )


class ServedCascade:
    """A cascade over queries in their order: whom it asked, and what it lost.

    With `rewards` only the answer's loss is told, else that of each model that was asked. The state is looked at anew
    every 50 queries.
    """

    def __init__(self, policy: Cascade, answers: Answers, *, rewards: bool = False) -> None:
        self.state = SelectionState()
        asked, lost = [], []
        for number, (confidence, *losses) in enumerate(zip(*(each.tolist() for each in answers), strict=True)):
            if number % 50 == 0:
                choice = policy.by_features(self.state, MODELS)
                assert choice is not None
            decision = choice.given([confidence]).select(query_rng(7, f"0-{number}"))
            told = dict(zip(MODELS, losses, strict=True))
            asked.append(DEAR in decision.models)
            lost.append(told[decision.served[0]])
            chances = dict(zip(decision.models, decision.propensities, strict=True))
            if rewards:
                chances = {decision.served[0]: decision.served_propensity}
            scored = {model: told[model] for model in chances}
            self.state = policy.observe_for(self.state, scored, chances, [confidence])
        self.asked, self.lost = np.array(asked), np.array(lost)


def cascades(seeds: int) -> Iterator[str]:
    yield "## Cascades\n"
    yield "| data | models | budget | asked | errors: cheap | dear | cascade | difference to the dear one |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, (models, made) in DATA.items():
        answers = made()
        for budget in BUDGETS:
            count = len(answers.dear)
            asked, apart, seen = np.zeros(count), np.zeros(count), np.zeros(count)
            for seed in range(seeds):
                order = np.random.default_rng(seed).permutation(count)
                served = ServedCascade(Cascade(budget=budget), Answers(*(each[order] for each in answers)))
                later = order[count // 2 :]
                asked[later] += served.asked[count // 2 :]
                apart[later] += served.lost[count // 2 :] - answers.dear[later]
                seen[later] += 1
            each = apart / np.maximum(seen, 1)
            mean, half = each.mean(), 1.96 * each.std() / np.sqrt(count)
            yield (
                f"| {name} | {models} | {budget} | {asked.sum() / seen.sum():.1%} | {answers.cheap.mean():.4f} | "
                f"{answers.dear.mean():.4f} | {answers.dear.mean() + mean:.4f} | "
                f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f}) |"
            )


# --- loss before labels ---------------------------------------------------------------------------------------------
class Stream(NamedTuple):
    """Answers in their order: probabilities (n, classes), labels (n,), and how many of the first are the reference."""

    probabilities: Floats
    labels: NDArray[np.int64]
    reference: int


def streams() -> Iterator[tuple[str, Stream]]:
    rng = np.random.default_rng(0)
    inputs, labels = make_classification(
        30_000, 20, n_informative=8, n_classes=3, n_clusters_per_class=2, class_sep=1.2, flip_y=0.02, random_state=1
    )
    fitted = LogisticRegression(max_iter=500).fit(inputs[:5_000], labels[:5_000])
    forest = RandomForestClassifier(50, random_state=0).fit(inputs[:5_000], labels[:5_000])
    later = np.arange(8_000, len(labels))
    sure = fitted.predict_proba(inputs[later]).max(axis=1)
    harder = later[np.argsort(-sure + rng.normal(0, 0.25, len(later)))]
    changed = labels.copy()
    others = later[len(later) // 2 :][rng.random(len(later) - len(later) // 2) < 0.3]
    changed[others] = (changed[others] + 1) % 3
    for name, model, truth, order in (
        ("same", fitted, labels, later),
        ("harder", fitted, labels, harder),
        ("labels change", fitted, changed, later),
        ("forest, harder", forest, labels, harder),
    ):
        rows = np.concatenate([np.arange(5_000, 8_000), order])
        yield name, Stream(model.predict_proba(inputs[rows]), truth[rows], 3_000)
    pixels, numbers = load_digits(return_X_y=True)
    shuffled = rng.permutation(len(numbers))
    model = LogisticRegression(C=0.01, max_iter=2_000).fit(pixels[shuffled[:600]], numbers[shuffled[:600]])
    rows = rng.choice(shuffled[600:], 8_000)
    noise = np.concatenate([np.ones(2_000), np.linspace(0, 5, 6_000)])[:, None]
    noisy = pixels[rows] + noise * rng.normal(0, 1, (8_000, 64))
    yield "noise", Stream(model.predict_proba(noisy), numbers[rows], 2_000)


def before_labels(rival: Path | None, most: int) -> Iterator[str]:
    yield "\n## Loss before labels\n"
    yield "| answers | errors | error of ours | of CBPE | of CBPE where ours is shown | shown | covered |"
    yield "|---|---|---|---|---|---|---|"
    for name, stream in streams():
        rows = slice(stream.reference + most * CHUNK)
        yield f"| {name} | {' | '.join(estimated(Stream(stream[0][rows], stream[1][rows], stream[2]), rival))} |"


def estimated(stream: Stream, rival: Path | None) -> Sequence[str]:
    sure, wrong = stream.probabilities.max(axis=1), stream.probabilities.argmax(axis=1) != stream.labels
    told = list(zip(sure.tolist(), wrong.astype(float).tolist(), strict=True))
    starts = range(stream.reference, len(sure) - CHUNK + 1, CHUNK)
    true = np.array([wrong[start : start + CHUNK].mean() for start in starts])
    ours, shown, covered = np.empty(len(true)), np.zeros(len(true), bool), list[bool]()
    sums: Calibration = reduce(lambda before, one: calibrated(before, *one), told[: stream.reference - CHUNK], ())
    for place, start in enumerate(starts):
        sums = reduce(lambda before, one: calibrated(before, *one), told[start - CHUNK : start] if place else (), sums)
        bins = np.bincount([*map(confidence_bin, sure[start : start + CHUNK].tolist())], minlength=BINS).tolist()
        found = expected_loss(sums, bins)
        assert found is not None
        if found.mean is None or found.lower is None or found.upper is None:
            ours[place] = np.nan
            continue
        ours[place], shown[place] = found.mean, True
        covered.append(bool(found.lower <= true[place] <= found.upper))
    theirs = cbpe(stream, rival) if rival is not None else np.full(len(true), np.nan)
    errors = np.abs(ours - true)[shown], np.abs(theirs - true), np.abs(theirs - true)[shown]
    figures = (f"{error.mean():.4f}" if len(error) and not np.isnan(error).any() else "-" for error in errors)
    return [f"{true.mean():.4f}", *figures, f"{shown.mean():.0%}", f"{np.mean(covered):.0%}" if covered else "-"]


def cbpe(stream: Stream, python: Path) -> Floats:
    """What NannyML expects of each chunk."""
    with tempfile.TemporaryDirectory() as folder:
        file, found = Path(folder) / "answers.npz", Path(folder) / "found.npy"
        np.savez(
            file, probabilities=stream.probabilities, labels=stream.labels, reference=stream.reference, chunk=CHUNK
        )
        command = [python, RIVALS / "nannyml_cbpe.py", file, found]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"NannyML: {done.stderr}")
        theirs: Floats = np.load(found)
        return theirs


def main() -> None:
    parser = page_options(__doc__)
    parser.add_argument("--seeds", type=int, default=40, help="orders of the queries of a cascade")
    parser.add_argument("--chunks", type=int, default=1_000, help="the most of a stream that are estimated")
    parser.add_argument("--no-install", action="store_true", help="CBPE only where NannyML is installed already")
    options = parsed(parser, {"seeds": 1, "chunks": 2})
    try:
        rival = rival_python("nannyml", "-nannyml", install=not options.no_install and not options.quick)
    except NotInstalled as error:
        print(error, file=sys.stderr)
        rival = None
    lines = [*cascades(options.seeds), *before_labels(rival, options.chunks)]
    print("\n".join(lines))
    if options.page is not None:
        pages = "../../docs/explanation/"
        made = f"""{options.seeds} orders of the queries. [Which policy when]({pages}which-policy-when.md),
[loss before labels]({pages}selection-and-feedback.md#loss-before-labels).
"""
        write_page(options.page, "Cascades, and the loss before labels", "", made, __doc__, lines)


if __name__ == "__main__":
    main()
