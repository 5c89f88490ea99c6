"""What quantile regression does that AIMD does not."""

from clipper_stream.batching.quantile import QuantileRegression


def after(latencies_s, limit):
    for latency_s in latencies_s:
        limit.observe(limit.rows, latency_s)
    return limit


def settled() -> QuantileRegression:
    limit = QuantileRegression(target_s=0.02, max_rows=4096)
    for _ in range(200):
        limit.observe(limit.rows, 0.002 + 0.0001 * limit.rows)
    return limit


def test_it_settles_on_the_line_without_noise():
    assert 175 <= settled().rows <= 180


def test_one_pause_of_the_host_does_not_lower_the_limit():
    limit = settled()
    before = limit.rows
    limit.observe(limit.rows, 0.5)
    assert limit.rows == before


def test_growth_follows_sent_batches_by_at_most_a_quarter_with_a_line():
    limit = QuantileRegression(target_s=0.02, max_rows=100_000)
    for batch in range(60):
        before = limit.rows
        limit.observe(before, 0.0001)
        assert limit.rows <= (2 * before if batch < 20 else before + before // 4 + 1)


def test_a_flat_latency_leads_to_max_rows():
    assert after([0.005] * 100, QuantileRegression(target_s=0.02, max_rows=512)).rows == 512


def test_a_model_too_slow_for_one_row_is_sent_few_rows():
    limit = QuantileRegression(target_s=0.02, max_rows=512)
    for _ in range(300):
        limit.observe(limit.rows, 0.05 * limit.rows)
        assert limit.rows <= 4


def test_a_call_that_misses_the_target_whatever_is_in_it_is_shared_by_many_rows():
    assert after([0.05] * 300, QuantileRegression(target_s=0.02, max_rows=512)).rows > 100


def test_a_latency_that_no_clock_can_measure_is_ignored():
    limit = settled()
    before = limit.rows
    for latency_s in (float("nan"), float("inf"), -1.0):
        limit.observe(before, latency_s)
    assert limit.rows == before
