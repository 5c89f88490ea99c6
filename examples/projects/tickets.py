"""Text with models in Python: a rule by keywords is served, and naive Bayes becomes its canary.

    python examples/projects/tickets.py

Needs the extras broker, sklearn and replay. The models are in `ticket_models.py`, which is copied to where they run.
"""

import json
import shutil
from pathlib import Path

import numpy as np

from clipper_loadgen import Dataset
from examples.shared.project import Project, main

CONFIGURATION = """
[[application]]
name = "tickets"
input = { dtype = "text" }
models = ["keywords:1"]
policy = { name = "exp3", parameters = { exploration = 0.3 } }
objective_ms = 5000
default_output = "other"
rollout = { margin = 0.05, steps = [0.4], least = 60 }

[[model]]
name = "keywords"
uri = "{keywords:1}"
"""
WORDS = {
    "billing": ["invoice", "charged", "refund", "card", "payment", "price", "receipt", "bank"],
    "technical": ["crash", "error", "login", "screen", "slow", "update", "install", "freeze"],
    "shipping": ["parcel", "courier", "late", "address", "delivery", "tracking", "lost", "box"],
}
FILLER = ["please", "the", "my", "I", "is", "a", "was", "help", "again", "today", "with", "you", "since", "order"]


def tickets(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts of customers, mostly filler, and the team that each is for."""
    rng = np.random.default_rng(seed)
    teams = rng.choice([*WORDS], count).tolist()
    texts = [" ".join(rng.permutation([*rng.choice(WORDS[team], 2), *rng.choice(FILLER, 6)])) for team in teams]
    return texts, teams


def train(folder: Path) -> dict[str, str]:
    """Copy the module, and write how often each word was in a ticket of each team."""
    shutil.copy(Path(__file__).with_name("ticket_models.py"), folder)
    counts: dict[str, dict[str, int]] = {team: {} for team in WORDS}
    for text, team in zip(*tickets(2_000, seed=0), strict=True):
        for word in text.split():
            counts[team][word] = counts[team].get(word, 0) + 1
    (folder / "counts.json").write_text(json.dumps(counts))
    return {"keywords:1": "ticket_models:by_keyword", "bayes:1": "ticket_models:Bayes"}


def project() -> Project:
    """The project."""
    texts, teams = tickets(5_000, seed=1)
    return Project(
        application="tickets",
        train=train,
        configuration=CONFIGURATION,
        traffic=Dataset(texts, teams),
        canary="bayes:1",
        candidates=("exp3", "keywords:1", "bayes:1"),
        modules=("ticket_models",),
    )


if __name__ == "__main__":
    main(project())
