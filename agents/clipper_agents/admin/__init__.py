"""What an operator does to a deployment: create its topics, publish its manifests, look at both.

[client] --reachable--> [topics]: create, grow, delete     [manifests]: publish, withdraw, read
KafkaUnreachable        TopicMismatch, TopicRefused        TopicMismatch (no control topic yet)
    | credentials, certificates, rights: AccessRefused (clipper_stream.client)
"""

from clipper_agents.admin.errors import KafkaUnreachable, TopicMismatch, TopicRefused
from clipper_agents.admin.manifests import Manifests, publish_manifests, read_manifests, withdraw_manifests
from clipper_agents.admin.topics import TopicsReport, delete_topics, ensure_topics, existing_topics
from clipper_agents.admin.waiting import wait_until_let_in

__all__ = [
    "KafkaUnreachable",
    "Manifests",
    "TopicMismatch",
    "TopicRefused",
    "TopicsReport",
    "delete_topics",
    "ensure_topics",
    "existing_topics",
    "publish_manifests",
    "read_manifests",
    "wait_until_let_in",
    "withdraw_manifests",
]
