"""Values of the Open Bandit Pipeline's estimators on arrays that a seed gives, for tests/unit/evaluation/estimators.

    uv venv obp && uv pip install --python obp --no-deps obp==0.5.7 && uv pip install --python obp scikit-learn pandas
    obp/bin/python obp_figures.py obp_figures.json

Its pinned dependencies cannot be installed beside ours, so its figures are committed. Of its modules only
`ope/estimators.py` is loaded, without torch, which that file names in annotations alone.
"""

import importlib
import importlib.util
import json
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

CASES = [
    {"seed": 1, "decisions": 500, "models": 2, "floor": 0.2},
    {"seed": 2, "decisions": 2_000, "models": 5, "floor": 0.05},
    {"seed": 3, "decisions": 10_000, "models": 10, "floor": 0.01},
    {"seed": 4, "decisions": 50, "models": 3, "floor": 0.02},
]
"""Losses of the third are fractions, those of the others 0 or 1."""


def arrays(seed, decisions, models, floor, **_):
    """Logged propensities, the candidate's and predicted losses, (n, K); what was chosen, and its loss, (n,).

    Made of uniform numbers alone, whose stream no release of numpy changes.
    """
    rng = np.random.default_rng(seed)
    logged = floor + (1 - models * floor) * shares(rng.random((decisions, models)))
    target = shares(rng.random((decisions, models)) ** 3)
    chosen = np.minimum((rng.random(decisions)[:, None] > np.cumsum(logged, axis=1)).sum(axis=1), models - 1)
    uniform = rng.random(decisions)
    loss = uniform if seed == 3 else (uniform < (chosen + 1) / (models + 2)).astype(float)
    return logged, target, rng.random((decisions, models)), chosen, loss


def shares(weights):
    return weights / weights.sum(axis=1, keepdims=True)


def estimators():
    torch: Any = types.ModuleType("torch")
    torch.Tensor = torch.tensor = object
    sys.modules["torch"] = torch
    root = importlib.util.find_spec("obp").submodule_search_locations[0]
    for name, folder in (("obp", ""), ("obp.ope", "/ope")):
        package = types.ModuleType(name)
        package.__path__ = [root + folder]
        sys.modules[name] = package
    return importlib.import_module("obp.ope.estimators")


def figures(ope, case):
    logged, target, predicted, chosen, loss = arrays(**case)
    made = {
        "ips": ope.InverseProbabilityWeighting(),
        "snips": ope.SelfNormalizedInverseProbabilityWeighting(),
        "dm": ope.DirectMethod(),
        "dr": ope.DoublyRobust(),
        "sndr": ope.SelfNormalizedDoublyRobust(),
    }
    pscore = logged[np.arange(len(chosen)), chosen]
    given = {"reward": loss, "action": chosen, "pscore": pscore, "action_dist": target[:, :, None]}
    given["estimated_rewards_by_reg_model"] = predicted[:, :, None]  # all take **kwargs
    return {name: estimator.estimate_policy_value(**given) for name, estimator in made.items()}


def main():
    ope, made_by = estimators(), f"obp_figures.py with obp {metadata.version('obp')} and numpy {np.__version__}"
    cases = [case | {"values": {name: float(each) for name, each in figures(ope, case).items()}} for case in CASES]
    Path(sys.argv[1]).write_text(json.dumps({"made_by": made_by, "cases": cases}, indent=2) + "\n")


if __name__ == "__main__":
    main()
