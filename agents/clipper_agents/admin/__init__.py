"""What an operator does to a deployment: create its topics, change its manifests, look at both.

[client] --reachable--> [topics]: create, grow, delete     [changing]: the one way to write to the control topic
KafkaUnreachable        TopicMismatch, TopicRefused        TopicMismatch (no control topic yet), NoCoordinator, Outpaced
    | credentials, certificates, rights: AccessRefused (clipper_stream.client)
"""

from clipper_agents.admin.changing import ControlWriter, change_control
from clipper_agents.admin.control_log import ControlState, read_control, read_manifests
from clipper_agents.admin.errors import KafkaUnreachable, NoCoordinator, Outpaced, TopicMismatch, TopicRefused
from clipper_agents.admin.manifests import Manifests
from clipper_agents.admin.publishing import publish_manifests, withdraw_manifests
from clipper_agents.admin.signing import Signature, Written
from clipper_agents.admin.topics import TopicsReport, delete_topics, ensure_topics, existing_topics
from clipper_agents.admin.waiting import wait_until_let_in

__all__ = [
    "ControlState",
    "ControlWriter",
    "KafkaUnreachable",
    "Manifests",
    "NoCoordinator",
    "Outpaced",
    "Signature",
    "TopicMismatch",
    "TopicRefused",
    "TopicsReport",
    "Written",
    "change_control",
    "delete_topics",
    "ensure_topics",
    "existing_topics",
    "publish_manifests",
    "read_control",
    "read_manifests",
    "wait_until_let_in",
    "withdraw_manifests",
]
