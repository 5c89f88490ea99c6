"""A cache whose values are in memory."""

from clipper_stream.caching.cache import ClockCache


class DictCache:
    """A `ClockCache` with its values; what it writes and deletes is noted.

    Attributes:
        values: By key; exactly those of the entries.
        deleted: Keys of the last `put`.
    """

    def __init__(self, budget_bytes, values=(), **settings):
        self.entries, self.values, self.deleted = ClockCache(budget_bytes, **settings), {}, []
        self.put(dict(values))

    def get(self, keys):
        hits = {*self.entries.hits(keys)}
        return [self.values[key] if key in hits else None for key in keys]

    def put(self, values):
        written, self.deleted = self.entries.put({key: len(value) for key, value in values.items()})
        self.values |= {key: values[key] for key in written}
        for key in self.deleted:
            self.values.pop(key, None)
