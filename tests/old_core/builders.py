"""Applications, queries and a router in memory, for tests of routing."""

import json
from collections import defaultdict

from builders.cache_store import DictStore
from clipper_stream.caching.clock import ClockCache
from clipper_stream.caching.keys import version_digest
from old_core import Application, CandidateModel, DecodedBlock, DecodedQuery, Failure, OutputPiece, Router
from clipper_stream.query.application import TrialModel
from clipper_stream.query.inputs import RowSpec
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState

NOW_S = 1_000_000.0
"""When the tests begin, seconds since the epoch."""


class JsonCodec:
    """Outputs in the cache as JSON."""

    @staticmethod
    def dumps(output):
        return json.dumps(output).encode()

    loads = staticmethod(json.loads)


def application(name="app", refs=("a:1",), policy="exp4", **changes):
    """An application of deterministic models over rows of one number, that answers within a second.

    `canaries` and `shadows` are shares by reference.
    """
    volatile = changes.pop("volatile", ())

    def candidate(ref):
        return CandidateModel(ref=ref, digest=version_digest(ref, None), deterministic=ref not in volatile)

    candidates = tuple(map(candidate, refs))
    changes["trials"] = tuple(
        TrialModel(candidate=candidate(ref), stage=stage, share=share)
        for stage, shares in (("canary", changes.pop("canaries", {})), ("shadow", changes.pop("shadows", {})))
        for ref, share in shares.items()
    )
    settings = dict(spec=RowSpec("float32", (1,)), objective_s=1.0, default_output="default")
    return Application(name=name, candidates=candidates, policy=make_policy(policy, {}), **(settings | changes))


def query(query_id, *values, **changes):
    """A query of one row of one number a value; packed when there are several."""
    settings = dict(application="app", rows=[[value] for value in values], packed=len(values) > 1, queried_at_s=NOW_S)
    return DecodedQuery(query_id=query_id, **(settings | changes))


def block_of(queries):
    """The block of queries of one application, each of one row."""
    first, deadlines_s = queries[0], [one.deadline_s for one in queries]
    return DecodedBlock(
        [one.query_id for one in queries], first.application, [one.rows[0] for one in queries],
        [one.queried_at_s for one in queries], first.partition, [one.offset for one in queries], first.generation,
        [one.key for one in queries], first.content_type, None if first.deadline_s is None else deadlines_s,
    )  # fmt: skip


def prepare(app, partition, context):
    """The choice of an application that has learned nothing."""
    return app.choice(SelectionState())


def make_router(*applications, known=None, budget_bytes=1_000_000, **settings):
    """A router of these applications, with a cache a partition."""
    known = {app.name: app for app in applications} if known is None else known
    caches = defaultdict(lambda: ClockCache(DictStore(), budget_bytes))
    return Router(known.get, prepare, caches.__getitem__, JsonCodec(), **settings)


def outputs_of(request, model, failed=None, rows=None):
    """The answer of a host to rows of a request, all of them unless told."""
    first, last = rows or (0, len(request.rows))
    failed = {row: Failure(*why) for row, why in (failed or {}).items()}
    outputs = [None if row in failed else model(float(request.rows[row][0])) for row in range(first, last)]
    return OutputPiece(request.frame, first, outputs, failed)
