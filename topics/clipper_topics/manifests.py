"""What operators declare: manifests on the control topic, one record a kind and name, the newest counts.

Rules of this file:
- A bound that holds for one value alone stands on the field: then every reader of the topic and of a configuration
  file refuses the same manifests. What must hold between fields or manifests is checked where they come together.
- Everything has an upper bound: whoever can write to the topic must not be able to have 10**9 processes started, or to
  have a number so large that arithmetic fails. The bounds lie far above what makes sense.
- A value of any form (`parameters`, `default_output`) is plain: bounded in depth, and without NaN or infinity.
- The records forbid unknown fields, so that an operator's misspelt key is found in his file. On the topic such a field
  is ignored (`clipper_topics.codec`), so that an older router reads what a newer command line wrote.
"""

import math
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$(?!\n)"
"""Names of applications and models: lower case, digits and dashes, because they become part of topic names.

The last group is for Python, where `$` alone would let a line feed pass.
"""
VERSION_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?$(?!\n)"
"""Versions of models: letters, digits and dashes; no dot, because the dot separates the parts of a topic name."""
REF_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?:[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?$(?!\n)"
"""`name:version` of a model."""
REF_CHARACTERS = 64 + 1 + 32
"""Of the longest `name:version`."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Version = Annotated[str, Meta(pattern=VERSION_PATTERN)]
ModelRef = Annotated[str, Meta(pattern=REF_PATTERN)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Text = Annotated[str, Meta(min_length=1, max_length=2048)]
Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=1, le=2**53)]
Replicas = Annotated[int, Meta(ge=1, le=256)]
BatchRows = Annotated[int, Meta(ge=1, le=65_536)]
ObjectiveMs = Annotated[int, Meta(ge=1, le=86_400_000)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

MAX_MANIFEST_BYTES = 256 * 1024
"""Of a record on the control topic: every process holds all of them."""
MAX_ROW_ELEMENTS = 2**20
"""Of a numeric row: a query's record has at most a mebibyte by the brokers' default."""
MAX_DEPTH = 32
"""Levels of a value of any form: far below any encoder's recursion limit, and as deep as an output may be."""


def check_plain(name: str, value: Any, depth: int = MAX_DEPTH) -> None:
    """Nothing, when a value can be written down in JSON and read by anybody.

    >>> check_plain("default_output", [1.0, {"a": None}])

    Raises:
        ValueError: nested too deeply, or not a finite number.
    """
    if depth == 0:
        raise ValueError(f"{name} is nested deeper than {MAX_DEPTH} levels: give a flatter value")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} has the number {value}: give a finite one")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError(f"{name} has an integer of more than 64 bits: give it as text")
    if isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            check_plain(name, member, depth - 1)


class ColumnSpec(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A named column of a table."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    """Name of the column."""
    dtype: Literal["number", "text", "date"] = "number"
    """`number`, `text` (categories too), or `date`: a day or a time in ISO 8601."""


class InputSpec(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one row of input looks like."""

    dtype: Literal["float32", "float64", "int32", "int64", "uint8", "text", "bytes", "json", "table"] = "float32"
    """Element type of a numeric row, or `text`, `bytes` (base64 in JSON), `json` (anything, passed on as it is) or
    `table` (an object with a value for each of the `columns`, or a list of these values)."""
    shape: Annotated[list[Count], Meta(max_length=16)] | None = None
    """Shape of a numeric row, for example `[64]`; absent: any one-dimensional length, the same in a batch."""
    columns: Annotated[list[ColumnSpec], Meta(max_length=4096)] = []
    """Columns of a `table`."""
    missing: bool = False
    """Whether null and NaN are missing values, in a row of floats or of a table; else they are refused."""

    def __post_init__(self) -> None:
        elements = math.prod(self.shape or ())
        if elements > MAX_ROW_ELEMENTS:
            raise ValueError(f"shape {self.shape} has {elements} elements: a row has at most {MAX_ROW_ELEMENTS}")
        names = [column.name for column in self.columns]
        if bool(names) != (self.dtype == "table"):
            raise ValueError(f"dtype {self.dtype} with {len(names)} columns: a table needs some, nothing else has any")
        if len(set(names)) < len(names):
            raise ValueError(f"columns {names}: give each name once")
        if self.missing and self.dtype not in ("float32", "float64", "table"):
            raise ValueError(f"missing values of dtype {self.dtype}: only floats and tables have them")


class PolicySpec(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A selection policy by name."""

    name: Text = "exp3"
    """A registered policy: `single`, `split`, `epsilon_greedy`, `thompson`, `tsallis_inf`, `exp3`, `lin_ucb`,
    which ask one model, `cascade`, which asks one and perhaps another, or `exp4`, `exp4_clipper`, which ask all."""
    parameters: dict[str, Any] = {}
    """Its parameters, for example `{"eta": 0.1}`."""

    def __post_init__(self) -> None:
        check_plain("policy.parameters", self.parameters)


class Trial(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A version that an application tries: asked and scored, but not one of its models yet."""

    model: ModelRef
    """The version, `name:version`."""
    stage: Literal["shadow", "canary"] = "shadow"
    """`shadow`: asked for the log only, and never waited for. `canary`: answers a bounded share of the queries."""
    share: Ratio = 1.0
    """Share of the queries that ask it besides (`shadow`), or that it answers instead of the policy (`canary`)."""
    automatic: bool = False
    """Whether it is stepped up, promoted or aborted by the application's `rollout` rule."""
    shadow_share: Ratio = 0.0
    """Of a canary: share of the queries that ask it as a shadow, of those that no canary answers. A label says of each
    how good both versions are, which takes far fewer labels than to compare different queries."""


class RolloutPlan(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a trial ends at the latest: after so many feedbacks or days, whichever comes first."""

    feedbacks: Annotated[int, Meta(ge=10, le=10**9)] | None = None
    """Feedbacks about queries that compare it with the answers; absent: any number."""
    days: Annotated[float, Meta(gt=0.0, le=365.0)] | None = None
    """Days since its first answer; absent: any number. Whole ones where losses follow the time of day."""
    power: Annotated[float, Meta(gt=0.5, lt=1.0)] = 0.8
    """How probably a difference of the margin is to be found; `status` says whether the plan is long enough."""

    def __post_init__(self) -> None:
        if self.feedbacks is None and self.days is None:
            raise ValueError("rollout.plan has no end: give feedbacks, or days, or both")


MEASURED = {"latency": {"bound_ms"}, "errors": {"margin"}, "defaults": {"margin"}, "cost": {"margin"}}
"""Metrics of guardrails that the log itself has, with what each takes; any other one is of feedback."""


class Guardrail(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a trial must not make worse beside its loss: aborted once it is outside for sure, promoted only within."""

    name: Name
    """What `status` and decisions call it."""
    metric: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$(?!\n)")]
    """`latency`: its p99 is at most `bound_ms`. `errors`, `defaults`: share of the queries that it fails, or leaves to
    the default output. `cost`: what a query costs. Or the name of a metric in feedback."""
    bound_ms: Annotated[float, Meta(gt=0.0, le=86_400_000.0)] | None = None
    """Of `latency`, in milliseconds from the decision to its output."""
    margin: Annotated[float, Meta(gt=0.0)] | None = None
    """Of all others: how much worse than the models' answers it may be on average, in the metric's unit."""
    range: tuple[float, float] | None = None
    """Least and greatest value of a metric in feedback; what is beyond counts as the nearest of the two."""
    better: Literal["lower", "higher"] = "lower"
    """Which values of a metric in feedback are good ones."""

    def __post_init__(self) -> None:
        place, takes = f"guardrail {self.name!r} on {self.metric}", MEASURED.get(self.metric, {"margin", "range"})
        given = {name for name in ("bound_ms", "margin", "range") if getattr(self, name) is not None}
        if self.better == "higher" and self.range is None:
            given.add("better")
        if given != takes:
            has, of_log = " and ".join(sorted(given)) or "no bound", ", ".join(MEASURED)
            raise ValueError(f"{place} has {has}: give {' and '.join(sorted(takes))} (the log has {of_log})")
        low, high = self.range or (0.0, math.inf if self.metric == "cost" else 1.0)
        if not low + (self.margin or 0.0) < high or (self.range and math.isinf(high - low)):
            raise ValueError(f"{place}: margin {self.margin} of {low:g} to {high:g}: give a rising range, less of it")


class RolloutRule(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a trial is stepped up or aborted by itself.

    Looked at is the difference of losses, trial minus what the application's models answered: stepped up when it is
    below `margin` for sure, aborted when it is above it for sure.
    """

    confidence: Annotated[float, Meta(ge=0.5, lt=1.0)] = 0.95
    """Half of the rest is how probable it is that one is ever stepped up wrongly, and half that one is aborted so."""
    margin: Ratio = 0.02
    """How much more loss is taken as no loss, in [0, 1]: the smaller, the longer an equal version takes."""
    relative_margin: Annotated[float, Meta(gt=0.0, le=1000.0)] | None = None
    """The same as a multiple of the answers' loss, for failures that are rare: 0.5 allows half as many more."""
    label_margin: Annotated[float, Meta(gt=0.0)] | None = None
    """The same in the unit of the labels, of `absolute` losses, whatever their scale; absent: `margin` counts."""
    steps: Annotated[list[Ratio], Meta(min_length=1, max_length=16)] = msgspec.field(
        default_factory=lambda: [0.05, 0.25, 0.5]
    )
    """Shares of a canary, rising; after the last one the version is promoted."""
    least: Count = 50
    """Feedbacks about the trial at each step before the next."""
    least_days: Annotated[int, Meta(ge=0, le=365)] = 0
    """Whole days before a promotion, where losses follow the time of day."""
    plan: RolloutPlan | None = None
    """When a trial ends at the latest: it is then found better, worse or without a difference that matters sooner than
    by a rule that may decide at any time; absent: it lasts until something is known for sure."""
    sampled_feedback: bool = False
    """Whether feedback is about a random sample of the queries, drawn whatever their answers and losses are: then a
    query whose feedback never comes is left out. Else its loss may be anything, which counts against both verdicts."""
    guardrails: Annotated[list[Guardrail], Meta(max_length=8)] = []
    """What must not become worse beside the loss. Each one more takes a part of the alpha of an abort."""

    def __post_init__(self) -> None:
        names = [one.name for one in self.guardrails]
        if len(set(names)) < len(names):
            raise ValueError(f"guardrails {', '.join(names)}: give each name once")


class DriftRule(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What watches the losses of an application's versions for a change."""

    delta: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.0002
    """Of the bound on false alarms of the detector, ADWIN; smaller: fewer, and later detections."""
    per_context: bool = False
    """Whether each context has a detector of its own; else each version has one."""


class ApplicationManifest(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One application: what it asks, of whom, how fast, and what it says when nobody answers."""

    name: Name
    """Name of the application."""
    revision: Count = 1
    """Counts up with every change; logged with each decision."""
    input: InputSpec = msgspec.field(default_factory=InputSpec)
    """What one row of input looks like."""
    models: Annotated[list[ModelRef], Meta(max_length=64)]
    """Candidates, `name:version`."""
    trials: Annotated[list[Trial], Meta(max_length=16)] = []
    """Versions that are tried beside the candidates."""
    rollout: RolloutRule = msgspec.field(default_factory=RolloutRule)
    """When a trial is stepped up, promoted or aborted by itself."""
    keep_best: Annotated[int, Meta(ge=1, le=64)] | None = None
    """Keep so many candidates, and retire the worst when the interval of its loss lies above theirs; absent: all."""
    drift: DriftRule | None = None
    """What watches the losses of candidates and trials for a change; absent: nothing."""
    assign: Literal["query", "context"] = "query"
    """Whether a canary answers is drawn for each query, or once for each `context`, which sees one version then."""
    context_window_s: Annotated[float, Meta(gt=0.0, le=604_800.0)] = 86_400.0
    """Where contexts are drawn: of each, the mean loss counts of the queries within so many seconds of its first."""
    policy: PolicySpec = msgspec.field(default_factory=PolicySpec)
    """Who chooses among them."""
    combiner: Literal["vote", "mean"] = "vote"
    """`vote` for labels, `mean` for numbers."""
    loss: Literal["zero_one", "absolute", "squared"] = "zero_one"
    """How a label is compared with an output."""
    loss_scale: Annotated[float, Meta(gt=0.0)] | None = None
    """The difference between label and output that is the loss 1, and so is any larger one, for `absolute` and
    `squared`; absent: 1, until a trial's first labels show larger differences, and the rollout controller sets it."""
    objective_ms: ObjectiveMs | None = 100
    """Answer within so many milliseconds of the query's timestamp; null: throughput mode, no deadline."""
    default_output: Any = None
    """Given when no model answered in time, or when they agreed too little."""
    confidence_threshold: Ratio = 0.0
    """Below this confidence the default output is given, in [0, 1]."""
    audit_ratio: Ratio = 0.0
    """Share of queries that are sent to all candidates, for full information in the log, in [0, 1]."""
    seed: Seed = 0
    """Seeds, with the query's id, every random choice."""
    input_features: Annotated[int, Meta(ge=0, le=16)] = 0
    """So many of the first numbers of a one-row numeric input are the features of a query that gives none itself."""

    @property
    def scaled_loss(self) -> str:
        """The loss with its scale: `zero_one`, `absolute` or `absolute:10.0`."""
        return self.loss if self.loss_scale is None else f"{self.loss}:{self.loss_scale!r}"

    @property
    def scaled_rollout(self) -> RolloutRule:
        """The rollout rule with its margin in losses."""
        said = self.rollout
        if said.label_margin is None:
            return said
        return msgspec.structs.replace(said, margin=min(1.0, said.label_margin / (self.loss_scale or 1.0)))

    @property
    def refs(self) -> list[str]:
        """Every version that it names, candidates first."""
        return [*self.models, *(trial.model for trial in self.trials)]

    def __post_init__(self) -> None:
        check_plain("default_output", self.default_output)
        if self.loss_scale is not None and self.loss == "zero_one":
            raise ValueError("loss_scale is about absolute and squared losses: leave it out, or give another loss")
        if self.rollout.label_margin is not None and self.loss != "absolute":
            raise ValueError("rollout.label_margin is about absolute losses: give margin, or another loss")
        tried = [trial.model for trial in self.trials]
        twice = sorted(set(tried) & set(self.models)) or sorted({ref for ref in tried if tried.count(ref) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} on trial twice, or a candidate already: name each version once")
        canaries = math.fsum(trial.share for trial in self.trials if trial.stage == "canary")
        if canaries > 1.0:
            raise ValueError(f"canaries answer {canaries:g} of the queries together: let their shares sum to 1 at most")
        if self.assign == "context" and any(trial.shadow_share for trial in self.trials):
            raise ValueError('shadow_share is drawn for each query: leave it out, or give assign = "query"')


class BatchSpec(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a model version batches."""

    limit: Literal["aimd", "fixed"] = "aimd"
    """Which controller sets the largest batch."""
    target_ms: Annotated[float, Meta(gt=0.0, le=3_600_000.0)] = 20.0
    """Latency that a batch should stay below, in milliseconds."""
    max_rows: BatchRows = 4096
    """No batch is larger; the batch size of the `fixed` limit."""
    max_delay_ms: Annotated[float, Meta(ge=0.0, le=3_600_000.0)] = 0.0
    """Wait at most so long, from the oldest row on, for a batch to fill."""
    hang_s: Annotated[float, Meta(ge=0.1, le=86_400.0)] = 60.0
    """A batch that runs longer is taken for one that never ends, and ends the process that runs it, in seconds."""


class ModelManifest(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One version of a model: what to run and how."""

    name: Name
    """Name of the model."""
    version: Version = "1"
    """Version of the model; other bytes are another version."""
    runtime: Text = "python"
    """A registered runtime: `python`, `sklearn`, `onnx`, `lightgbm`, `xgboost`, `oip`; where unpickling is
    permitted `joblib`, `mlflow`."""
    uri: Text
    """`package.module:attribute` for `python`, a server's URL for `oip`; for the others the path of a file, or a URI
    such as `s3://bucket/a.onnx`."""
    sha256: Sha256 | None = None
    """Digest of the model file, checked before it is loaded; a file needs one (`up` and `apply` fill it in)."""
    parameters: dict[str, Any] = {}
    """Keyword arguments for the runtime."""
    input: InputSpec = msgspec.field(default_factory=InputSpec)
    """What one row of input looks like."""
    batch: BatchSpec = msgspec.field(default_factory=BatchSpec)
    """How it batches."""
    replicas: Replicas = 1
    """How many hosts serve this version; the number of partitions of its requests topic."""
    colocated: bool = False
    """Run inside each router process instead of in hosts of its own: two hops instead of four, for cheap models."""
    deterministic: bool = True
    """Whether the same input always has the same output; only then are outputs cached."""
    memory_mib: Annotated[int, Meta(ge=64, le=2**24)] | None = None
    """Resident memory above which a host drains and is started again, in MiB; absent: no limit."""
    cpus: Annotated[float, Meta(gt=0.0, le=1024.0)] | None = None
    """Processor cores that a host may use; absent: no limit."""
    cost: Annotated[float, Meta(ge=0.0, le=1e12)] | None = None
    """What a query costs that it answers, and no cache, in any unit that is the same for all; absent: unknown."""
    retired: bool = False
    """Whether its hosts have ended; the manifest stays, so that a rollback finds it."""

    def __post_init__(self) -> None:
        check_plain("parameters", self.parameters)

    @property
    def ref(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def is_hosted(self) -> bool:
        """Whether it has hosts of its own, and so a requests topic."""
        return not self.colocated and not self.retired
