"""What the rollout controller decides, and what carries its decisions out: the changes that an operator makes as well.

Rules of this file:
- A decision names the revision that it looked at. When the application has another one by now, nothing is changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from clipper_agents.control import changes as rules
from clipper_agents.control.change_records import Signature
from clipper_agents.control.plan import Plan
from clipper_agents.control.state import Manifests
from clipper_agents.control.writer import ControlWriter, as_control_writer, change_control
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import key_of
from clipper_topics.drift import DriftEvent

BY = "rollout"
"""Author of automatic decisions in the history of an application."""


Command: TypeAlias = Literal["step", "promote", "abort", "retire", "scale"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutDecision:
    """A change that a rule asks for.

    Attributes:
        command: `step` (the trial becomes, or stays, a canary of this share), `promote` (the trial becomes a
            candidate), `abort` (the trial ends), `retire` (the candidate is one no longer) or `scale` (the
            application's losses are measured by `loss_scale` of the numbers).
        revision: Of the application's manifest that was looked at.
        share: Of the canary, for `step`.
        why: The rule that fired.
        numbers: What it was made of.
    """

    command: Command
    application: str
    model: str
    revision: int
    share: float | None = None
    why: str = ""
    numbers: Mapping[str, Any]


class ControlChanges:
    """Has decisions carried out, and detections noted, on the control topic.

    Raises:
        WriteContention: other writers interrupted every attempt.
        KafkaUnreachable: no broker answers; it is not known whether something was changed.
    """

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue) -> None:
        self._kafka, self._catalogue = kafka, catalogue

    async def apply(self, decision: RolloutDecision) -> None:
        """Change the application as the decision says.

        Raises:
            StaleRevision: the application has another revision than the one that was looked at; nothing was changed.
            RefusedChange: at this revision the change is impossible.
        """
        signature = Signature(by=BY, why=decision.why, numbers=decision.numbers)
        seen = {decision.application: decision.revision}
        await change_control(
            self._kafka, self._catalogue, lambda state: plan_of(decision, state.manifests), signature, seen=seen
        )

    async def note_drift(self, event: DriftEvent) -> bool:
        """Note a detection unless it, or a newer one about the version, is there; return whether it was written."""

        async def write(writer: ControlWriter) -> bool:
            if not is_newer(event, writer.state.drifts.get((event.application, event.model))):
                return False
            await writer.write([(key_of(event), codec.drifts.encode(event))])
            return True

        return await as_control_writer(self._kafka, self._catalogue, write)


def plan_of(decision: RolloutDecision, published: Manifests) -> Plan:
    """The change of the manifests that a decision asks for."""
    application, model = decision.application, decision.model
    if decision.command == "step":
        assert decision.share is not None
        return rules.step(published, application, model, decision.share)
    if decision.command == "scale":
        return rules.update(published, application, {"loss_scale": decision.numbers["loss_scale"]})
    rule = {"promote": rules.promote, "abort": rules.abort, "retire": rules.retire}[decision.command]
    return rule(published, application, model)


def is_newer(event: DriftEvent, known: DriftEvent | None) -> bool:
    """Return whether a detection is later in the logs than the one that is known."""
    return known is None or event.at_ms > known.at_ms
