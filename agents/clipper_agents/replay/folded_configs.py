"""Under which policy and loss each feedback of a partition was folded, as its table says.

Rules of this file:
- Where an application has always learned alike, the table is not asked.
- Of feedback before the first place that the table names, an older version has folded it, or more changes came than are
  kept. It cannot be verified, nor what came after it.
"""

from collections.abc import Mapping

from clipper_agents.feedback.learning_config import LearningConfigs
from clipper_stream.query import Application
from clipper_topics.selection_rows import NO_ROW, NOT_DECLARED, SelectionRow, config_context


class FoldedConfigs:
    """Finds the application as it was when a feedback was folded.

    Args:
        configs: Of each application.
        notes: Of the table, by `config_context`; may be empty where each application has one configuration.

    Attributes:
        unlogged: Applications with feedback of which nothing says how it was folded.
    """

    def __init__(self, configs: Mapping[str, LearningConfigs], notes: Mapping[str | None, SelectionRow]) -> None:
        self._configs, self._notes = configs, notes
        self.unlogged: set[str] = set()

    def application(self, name: str, offset: int) -> Application | None:
        """Return the application as it learned from the feedback at an offset; None when it learned nothing."""
        known = self._configs.get(name)
        if known is None or known.only is not None:
            return None if known is None else known.only
        starts = self._notes.get(config_context(name), NO_ROW).configs
        config = next((one.config for one in reversed(starts) if one.first <= offset), None)
        if config is None or (config not in known.applications and config != NOT_DECLARED):
            self.unlogged.add(name)
            return None
        return known.applications.get(config)
