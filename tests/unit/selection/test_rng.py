"""Random numbers of a query are a function of the application's seed and the query's id, for ever."""

import math

from clipper_stream.selection.rng import query_rng


def test_the_numbers_are_those_of_every_other_version_of_this_project():
    rng = query_rng(7, "3-41")
    assert [rng.random() for _ in range(3)] == [0.5374402694826048, 0.19851515212575588, 0.5238523475160434]


def test_seeds_of_any_size_and_sign_are_taken():
    assert query_rng(-1, "q").random() == query_rng(2**64 - 1, "q").random()
    assert query_rng(2**70 + 5, "ß").random() == query_rng(5, "ß").random()


def test_numbers_are_uniform_over_queries_that_follow_each_other_and_others_for_another_seed():
    cells, draws = [0] * 20, 40_000
    numbers = {query_rng(seed, f"0-{offset}").random() for seed in range(10) for offset in range(draws // 10)}
    assert len(numbers) == draws
    for number in numbers:
        cells[int(number * 20)] += 1
    chi_square = sum((cell - draws / 20) ** 2 / (draws / 20) for cell in cells)
    assert chi_square < 19 + 5 * math.sqrt(2 * 19)  # mean and five standard deviations of chi-square, 19 degrees
