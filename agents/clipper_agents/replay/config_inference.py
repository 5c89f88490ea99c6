"""In which way a partition's learner observed at which feedback, where an application's policy or loss has changed.

The offset at which a router knew of a change is not logged. Expected is where feedback ended when it was made; where
the table says otherwise, the offsets that are possible are tried, and what fits is assumed from there on.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import NamedTuple

from clipper_agents.replay.learning_config import LearningConfig
from clipper_agents.replay.refold import Entry, Find
from clipper_agents.replay.verdicts import ConfigSwitch
from clipper_stream.query import Application

MOST_CHOICES = 200
"""Tried at one step: a learner's step has one way, so the first few decide nearly always."""


class ConfigChoice(NamedTuple):
    """One way from an offset on, and that of before until there."""

    way: int
    split: int


ConfigChoices = Mapping[str, ConfigChoice]


class ConfigInference:
    """The ways of one partition, as far as the fold has come.

    Args:
        ways: Of each application, oldest first.
        partition: Its number.

    Attributes:
        switches: Where the way became another one.
    """

    def __init__(self, ways: Mapping[str, Sequence[LearningConfig]], partition: int) -> None:
        self._ways, self._partition = ways, partition
        self._at: dict[str, int] = {}
        self.switches: list[ConfigSwitch] = []

    def pieces(self, entries: Sequence[Entry], choices: ConfigChoices) -> Iterator[tuple[list[Entry], Find]]:
        """The entries in parts with one way each, and what finds an application in each."""
        cuts = {cut for name in self._several for cut in self._cuts(name)} | {one.split for one in choices.values()}

        def part(entry: Entry) -> int:
            return sum(cut <= entry.offset for cut in cuts)

        for _, found in groupby(entries, part):
            together = list(found)
            yield together, self._finder(together[0].offset, choices)

    def choices(self, name: str, entries: Sequence[Entry]) -> Iterator[ConfigChoice]:
        """What may have been instead of what is expected, likely ones first."""
        if name not in self._several:
            return iter(())
        return islice(self._all_choices(name, [entry.offset for entry in entries]), MOST_CHOICES)

    def settle(self, name: str, entries: Sequence[Entry], choices: ConfigChoices) -> None:
        """These entries were folded in the right way: it holds from here on."""
        if name not in self._several:
            return
        before, now = self._at.get(name, 0), self._index(name, entries[-1].offset, choices)
        if now == before:
            return
        offset = next(one.offset for one in entries if self._index(name, one.offset, choices) == now)
        revision = self._ways[name][now].revision
        self._at[name] = now
        self.switches.append(
            ConfigSwitch(
                application=name,
                partition=self._partition,
                revision=revision,
                offset=offset,
                earliest=entries[0].offset,
                latest=entries[-1].offset,
            )
        )

    @property
    def _several(self) -> dict[str, Sequence[LearningConfig]]:
        return {name: ways for name, ways in self._ways.items() if len(ways) > 1}

    def _cuts(self, name: str) -> Iterator[int]:
        for way in self._ways[name][1:]:
            if way.since is not None and self._partition < len(way.since):
                yield way.since[self._partition]

    def _all_choices(self, name: str, offsets: Sequence[int]) -> Iterator[ConfigChoice]:
        at = self._at.get(name, 0)
        ways = sorted(range(len(self._ways[name])), key=lambda number: abs(number - at))
        for way in ways:
            yield ConfigChoice(way, offsets[0])
        expected = next(iter(self._cuts(name)), offsets[0])
        for split in sorted(offsets[1:], key=lambda offset: abs(offset - expected)):
            for way in ways[1:]:
                yield ConfigChoice(way, split)

    def _finder(self, offset: int, choices: ConfigChoices) -> Find:
        def find(name: str) -> Application | None:
            ways = self._ways.get(name)
            return None if ways is None else ways[self._index(name, offset, choices)].application

        return find

    def _index(self, name: str, offset: int, choices: ConfigChoices) -> int:
        at, choice = self._at.get(name, 0), choices.get(name)
        if choice is not None:
            return choice.way if offset >= choice.split else at
        later = enumerate(self._ways[name])
        return max([at, *(number for number, way in later if way.expected(self._partition, offset))])
