"""A store of cache entries in memory."""


class DictStore:
    """Keeps cache entries in a dictionary."""

    def __init__(self, entries=()):
        self._entries = dict(entries)

    def get_many(self, keys):
        return [self._entries.get(key) for key in keys]

    def write(self, puts, deletes):
        self._entries.update(puts)
        for key in deletes:
            self._entries.pop(key, None)

    def items(self):
        return list(self._entries.items())
