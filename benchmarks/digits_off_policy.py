"""How far is an estimated reward from the true one, on the digits and by the rules of a table that others published?

    python benchmarks/digits_off_policy.py                                                   # a minute; seeded
    python benchmarks/digits_off_policy.py --page benchmarks/results/digits-off-policy.md    # and the page
    python benchmarks/digits_off_policy.py --quick                                           # its numbers say nothing

The table is that of the Open Bandit Pipeline (Saito et al., "Open Bandit Dataset and Pipeline", 2020,
`examples/multiclass` of its repository): each of ten actions says one digit, the reward is 1 where it is right. Of the
1,797 images three in ten train a logistic regression. The logging policy serves what it says for 8 in 10 queries and
draws one of all for the others, the policy that is estimated the same for 9 in 10; the log has the other seven in ten
of the images once each. Twenty runs differ in the split and in what is drawn.

The error is |estimate - truth| / truth, the truth that of the probabilities on the images of the log. Predicted rewards
are those of the pipeline: one logistic regression of the pixels and the action, fitted on two thirds of the log for the
other. `by context` are our own instead, means of what each action earned where the logging policy preferred a digit.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from rig.session import page_options, parsed, write_page
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, train_test_split

from clipper_stream.evaluation.estimators.block_sums import BLOCKS
from clipper_stream.evaluation.estimators.outcome_model import OutcomeSums, with_predictions
from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.estimators.registry import make_estimators

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

LOGGED, ESTIMATED, EVALUATED = 0.8, 0.9, 0.7
PUBLISHED = {"dm": 0.0934, "ips": 0.0133, "snips": 0.0068, "dr": 0.0078, "sndr": 0.0072}
FOLDS = 3


def main() -> None:
    parser = page_options(__doc__)
    parser.add_argument("--runs", type=int, default=20)
    options = parsed(parser, {"runs": 1})
    runs = [errors(seed) for seed in range(options.runs)]
    lines = [*table(runs)]
    print("\n".join(lines))
    if options.page is not None:
        write_page(options.page, "Off-policy estimates on digits", "", f"{options.runs} runs.", __doc__, lines)


def table(runs: list[dict[str, float]]) -> Iterator[str]:
    yield "| estimator | published | ours | standard error | ours, by context |"
    yield "|---|---|---|---|---|"
    for name, published in PUBLISHED.items():
        found = np.array([run[name] for run in runs])
        error = f"{found.std() / len(runs) ** 0.5:.4f}"
        own = np.mean([run[f"{name} by context"] for run in runs])
        yield f"| {name} | {published:.4f} | {found.mean():.4f} | {error} | {own:.4f} |"


def errors(seed: int) -> dict[str, float]:
    """The relative error of each estimator in one run, with the pipeline's predictions and with ours."""
    images, digits = load_digits(return_X_y=True)
    train, kept, known, right = train_test_split(images, digits, test_size=EVALUATED, random_state=seed)
    says = regression().fit(train, known).predict(kept)
    logging, candidate = (share * np.eye(10)[says] + (1.0 - share) / 10 for share in (LOGGED, ESTIMATED))
    rng, rows = np.random.default_rng(seed), np.arange(len(kept))
    action = (rng.random(len(kept))[:, None] > np.cumsum(logging, axis=1)).sum(axis=1).clip(0, 9)
    loss, chosen = (action != right).astype(float), np.eye(10)[action]
    truth = float(candidate[rows, right].mean())
    choices = Choices(
        weight=chosen / logging[rows, action][:, None],
        loss=chosen * loss[:, None],
        target=candidate,
        predicted=predictions(kept, action, loss, seed),
        answer_loss=loss,
        block=rng.integers(0, BLOCKS, len(kept)),
        context=says.astype(np.int32),
    )
    own = with_predictions(choices, OutcomeSums.of(choices, 10).table())
    return {
        f"{each.name}{suffix}": abs(1.0 - each.sums(of).value - truth) / truth
        for suffix, of in (("", choices), (" by context", own))
        for each in make_estimators([*PUBLISHED])
    }


def predictions(images: Floats, action: Labels, loss: Floats, seed: int) -> Floats:
    """The loss of each action on each image, as a regression on the other images predicts it, (n, 10)."""
    found = np.empty((len(images), 10))
    for learned, other in KFold(FOLDS, shuffle=True, random_state=seed).split(images):
        model = regression().fit(np.hstack([images, np.eye(10)[action]])[learned], loss[learned])
        for one in range(10):
            as_if = np.hstack([images[other], np.tile(np.eye(10)[one], (len(other), 1))])
            found[other, one] = model.predict_proba(as_if)[:, 1]
    return found


def regression() -> LogisticRegression:
    return LogisticRegression(C=1_000.0, max_iter=10_000, random_state=12_345)


if __name__ == "__main__":
    main()
