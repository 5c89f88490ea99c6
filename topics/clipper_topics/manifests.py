"""What operators declare: manifests on the control topic, one record a kind and name, the newest counts.

Rules of this file:
- A bound that holds for one value alone stands on the field: then every reader of the topic and of a configuration
  file refuses the same manifests. What must hold between fields or manifests is checked where they come together.
- The records forbid unknown fields, so that an operator's misspelt key is found in his file. On the topic such a field
  is ignored (`clipper_topics.codec`), so that an older router reads what a newer command line wrote.
"""

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

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Version = Annotated[str, Meta(pattern=VERSION_PATTERN)]
ModelRef = Annotated[str, Meta(pattern=REF_PATTERN)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Text = Annotated[str, Meta(min_length=1)]
Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=1)]


class InputSpec(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one row of input looks like."""

    dtype: Literal["float32", "float64", "int32", "int64", "uint8", "text", "bytes", "json"] = "float32"
    """Element type of a numeric row, or `text`, `bytes` (base64 in JSON) or `json` (anything, passed on as it is)."""
    shape: list[Count] | None = None
    """Shape of a numeric row, for example `[64]`; absent: any one-dimensional length, the same in a batch."""


class PolicySpec(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A selection policy by name."""

    name: Text = "exp3"
    """A registered policy: `single`, `split`, `epsilon_greedy`, `exp3`, `exp4`."""
    parameters: dict[str, Any] = {}
    """Its parameters, for example `{"eta": 0.1}`."""


class ApplicationManifest(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One application: what it asks, of whom, how fast, and what it says when nobody answers."""

    name: Name
    """Name of the application."""
    revision: Count = 1
    """Counts up with every change; logged with each decision."""
    input: InputSpec = msgspec.field(default_factory=InputSpec)
    """What one row of input looks like."""
    models: list[ModelRef]
    """Candidates, `name:version`."""
    policy: PolicySpec = msgspec.field(default_factory=PolicySpec)
    """Who chooses among them."""
    combiner: Literal["vote", "mean"] = "vote"
    """`vote` for labels, `mean` for numbers."""
    loss: Literal["zero_one", "absolute", "squared"] = "zero_one"
    """How a label is compared with an output."""
    objective_ms: Count | None = 100
    """Answer within so many milliseconds of the query's timestamp; null: throughput mode, no deadline."""
    default_output: Any = None
    """Given when no model answered in time, or when they agreed too little."""
    confidence_threshold: Ratio = 0.0
    """Below this confidence the default output is given, in [0, 1]."""
    audit_ratio: Ratio = 0.0
    """Share of queries that are sent to all candidates, for full information in the log, in [0, 1]."""
    seed: int = 0
    """Seeds, with the query's id, every random choice."""


class BatchSpec(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a model version batches."""

    limit: Literal["aimd", "fixed", "quantile"] = "aimd"
    """Which controller sets the largest batch."""
    target_ms: Annotated[float, Meta(gt=0.0)] = 20.0
    """Latency that a batch should stay below, in milliseconds."""
    max_rows: Count = 4096
    """No batch is larger; the batch size of the `fixed` limit."""
    max_delay_ms: Annotated[float, Meta(ge=0.0)] = 0.0
    """Wait at most so long, from the oldest row on, for a batch to fill."""


class ModelManifest(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One version of a model: what to run and how."""

    name: Name
    """Name of the model."""
    version: Version = "1"
    """Version of the model; other bytes are another version."""
    runtime: Text = "python"
    """A registered runtime: `python` or `sklearn`."""
    uri: Text
    """`package.module:attribute` for `python`, the path of a `.skops` file for `sklearn`."""
    sha256: Sha256 | None = None
    """Digest of the model file, checked before it is loaded."""
    parameters: dict[str, Any] = {}
    """Keyword arguments for the runtime."""
    input: InputSpec = msgspec.field(default_factory=InputSpec)
    """What one row of input looks like."""
    batch: BatchSpec = msgspec.field(default_factory=BatchSpec)
    """How it batches."""
    replicas: Count = 1
    """How many hosts serve this version; the number of partitions of its requests topic."""
    colocated: bool = False
    """Run inside each router process instead of in hosts of its own: two hops instead of four, for cheap models."""
    deterministic: bool = True
    """Whether the same input always has the same output; only then are outputs cached."""

    @property
    def ref(self) -> str:
        """`name:version`."""
        return f"{self.name}:{self.version}"
