"""Models of the tickets: rows are a list of texts, and the answer is one team a text."""

import json
import math
from pathlib import Path

KEYWORDS = {"invoice": "billing", "refund": "billing", "error": "technical", "parcel": "shipping"}


def by_keyword(texts: list[str]) -> list[str]:
    """The team of the first keyword, as somebody wrote it down on the first day."""
    return [next((KEYWORDS[word] for word in text.split() if word in KEYWORDS), "technical") for text in texts]


class Bayes:
    """Naive Bayes on words; `counts.json` lies beside this module."""

    def __init__(self) -> None:
        counts = json.loads(Path(__file__).with_name("counts.json").read_text())
        self.weights = {
            team: {word: math.log((count + 1) / (sum(words.values()) + 1)) for word, count in words.items()}
            for team, words in counts.items()
        }
        self.unseen = math.log(1e-5)

    def predict_batch(self, texts: list[str]) -> list[str]:
        """The likeliest team of each text."""
        return [max(self.weights, key=lambda team: self._score(team, text)) for text in texts]

    def _score(self, team: str, text: str) -> float:
        return sum(self.weights[team].get(word, self.unseen) for word in text.split())
