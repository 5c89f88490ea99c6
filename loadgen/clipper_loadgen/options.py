"""A plan from the plain arguments of a command line, in the units that people type: milliseconds and ratios."""

from clipper_loadgen.datasets import Dataset, load_dataset
from clipper_loadgen.plan import LoadPlan
from clipper_stream.errors import InvalidSetting


def make_plan(
    application: str,
    *,
    rate: float = 200.0,
    seconds: float = 20.0,
    warmup_seconds: float = 0.0,
    arrivals: str = "poisson",
    saturate: bool = False,
    queries: int = 50_000,
    outstanding: int = 5_000,
    inputs: str | None = None,
    labels: str | None = None,
    contexts: int = 0,
    zipf: float = 0.0,
    repeats: float = 0.0,
    recent: int = 1_000,
    feedback_delay_ms: float | None = None,
    feedback_distribution: str = "constant",
    label_noise: float = 0.0,
    encoding: str = "json",
    linger_ms: float = 0.0,
    drain_seconds: float = 10.0,
    seed: int = 0,
) -> LoadPlan:
    """The plan.

    >>> make_plan("digits", rate=50.0, linger_ms=1.0).linger_s
    0.001

    Args:
        application: Name of a registered application.
        rate: Queries a second; with `saturate` not used.
        seconds: Seconds of measured load; with `saturate` not used.
        warmup_seconds: Seconds of load before it that are not counted.
        arrivals: `poisson` or `constant`.
        saturate: Send as fast as `outstanding` allows instead of at a rate.
        queries: How many to send with `saturate`.
        outstanding: Most queries without an answer with `saturate`.
        inputs: `.npy`, `.jsonl` or `sklearn:NAME`; absent: random rows by the application's input spec.
        labels: `.npy` file of labels for a `.npy` file of inputs.
        contexts: Number of contexts, 0 for none.
        zipf: Exponent of the skew over contexts.
        repeats: Share of queries that repeat a recent input, in [0, 1].
        recent: How far back repeats reach, in queries.
        feedback_delay_ms: Mean delay of feedback; absent: none is sent.
        feedback_distribution: `constant`, `exponential` or `uniform`.
        label_noise: Share of wrong labels, or without labels of losses of 1, in [0, 1].
        encoding: `json` or `msgpack`.
        linger_ms: Wait so long for queries to share a request, in [0, 1].
        drain_seconds: A query is missing when no answer at all has come for so long.
        seed: Seeds every draw.

    Raises:
        InvalidSetting: a value outside its bound, or an input file that cannot be read.
        UnknownName: an unknown kind of arrivals, distribution or encoding.
    """
    return LoadPlan(
        application,
        mode="saturation" if saturate else "rate",
        rate_per_s=rate,
        duration_s=seconds,
        warmup_s=0.0 if saturate else warmup_seconds,
        arrivals=arrivals,
        queries=queries,
        outstanding=outstanding,
        dataset=_dataset(inputs, labels),
        contexts=contexts,
        zipf_exponent=zipf,
        repeat_ratio=repeats,
        recent=recent,
        feedback_delay_s=None if feedback_delay_ms is None else feedback_delay_ms / 1e3,
        feedback_distribution=feedback_distribution,
        label_noise_ratio=label_noise,
        encoding=encoding,
        linger_s=linger_ms / 1e3,
        drain_s=drain_seconds,
        seed=seed,
    )


def _dataset(inputs: str | None, labels: str | None) -> Dataset | None:
    if inputs is not None:
        return load_dataset(inputs, labels)
    if labels is not None:
        raise InvalidSetting(f"labels {labels!r} belong to inputs: give --inputs as well")
    return None
