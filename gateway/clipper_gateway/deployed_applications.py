"""The applications and models of the deployment, and which versions are served, followed on two compacted topics."""

from collections.abc import Mapping

from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.control.state import ControlState
from clipper_agents.kafka.follower import TopicFollower
from clipper_gateway.errors import Refusal
from clipper_stream.errors import shown
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ApplicationManifest, ModelManifest


class DeployedApplications:
    """What is registered now, as the followers of `control` and `hosts` have read it."""

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue) -> None:
        self._state, self._hosts = ControlState(notes=(), saved_rows=False), ReadyHosts()
        self.control = TopicFollower(kafka, catalogue.control, self._state.take)
        self.hosts = TopicFollower(kafka, catalogue.hosts, self._hosts.take)

    @property
    def is_known(self) -> bool:
        """Whether the control topic has been read to its end once."""
        return self.control.caught_up.is_set()

    @property
    def applications(self) -> Mapping[str, ApplicationManifest]:
        """Every application, by name."""
        return self._state.manifests.applications

    @property
    def models(self) -> Mapping[str, ModelManifest]:
        """Every version, by `name:version`."""
        return self._state.manifests.models

    def check_known(self) -> None:
        """Raise a `Refusal` when the control topic was never read to its end: what is missing may be in it."""
        if not self.is_known:
            raise Refusal(503, "this gateway has not read the applications yet: try again", retry_after_s=1.0)

    def manifest(self, name: str) -> ApplicationManifest:
        """Return an application."""
        found = self.applications.get(name)
        if found is not None:
            return found
        self.check_known()
        raise Refusal(404, f"there is no application {shown(name)}: GET /v1/applications lists those that exist")

    def is_ready(self, name: str) -> bool:
        """Return whether a version that may answer for the application is served now; errors as of `manifest`."""
        return any(self._is_served(ref) for ref in self.manifest(name).refs)

    def _is_served(self, ref: str) -> bool:
        model = self.models.get(ref)
        return model is not None and not model.retired and (model.colocated or self._hosts.hosts(ref) > 0)
