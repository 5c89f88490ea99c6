"""The sample models do what their descriptions say, through the same loading as any other model."""

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from clipper_stream.models.registry import load_model
from clipper_stream.models.runner import predict_rows

ROWS = np.arange(3000.0, dtype=np.float32).reshape(1000, 3)


def outcome_of(attribute, rows=ROWS, **parameters):
    return predict_rows(load_model("python", f"clipper_agents.examples.models:{attribute}", None, parameters), rows)


def test_sums_are_those_of_all_numbers_of_a_row_also_of_the_slow_model_and_the_most_common_digit_is_that():
    ((digit, _),) = Counter(load_digits().target.tolist()).most_common(1)
    assert outcome_of("most_common_digit").outputs == [digit] * 1000
    assert outcome_of("sum_of_row", np.ones((2, 4, 4), np.float32)).outputs == [16.0, 16.0]
    assert outcome_of("slow", seconds_per_batch=0.0).outputs == outcome_of("sum_of_row").outputs


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0])
def test_a_flaky_model_fails_its_share_of_rows_and_always_the_same_ones(ratio):
    first, second = (outcome_of("flaky", failing_ratio=ratio) for _ in range(2))
    assert first.failed.keys() == second.failed.keys()
    spread = 4 * (1000 * ratio * (1 - ratio)) ** 0.5  # four standard deviations of a binomial count
    assert abs(len(first.failed) - 1000 * ratio) <= spread
