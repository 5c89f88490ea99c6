"""Topics whose partitions are led by nodes of a test's choice."""

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from e2e.programs import until


def coordinator(admin, group):
    """The node that coordinates a group; None while none does yet."""
    try:
        return admin.describe_consumer_groups([group])[group].result(30).coordinator.id
    except (KafkaException, TimeoutError):
        return None


def lead_from_afar(cluster, catalogue, *more):
    """Create topics of one copy: a node leads partition 0 of predictions and dead letters, another one the rest.

    Args:
        cluster: Three nodes.
        catalogue: Whose topics.
        more: Topics beside the fixed ones.

    Returns:
        The first node, which does not coordinate the routers.
    """
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    coordinates = until("groups have coordinators", lambda: coordinator(admin, catalogue.router_group))
    away, stays = [one for one in cluster.node_ids if one != coordinates]
    topics = []
    for spec in [*catalogue.fixed_topics(), *more]:
        leaders = [[stays] for _ in range(spec.partitions)]
        if spec.name in {catalogue.predictions, catalogue.dead_letters}:
            leaders[0] = [away]
        topics.append(NewTopic(spec.name, spec.partitions, replica_assignment=leaders, config=dict(spec.config)))
    for made in admin.create_topics(topics).values():
        made.result(30)
    return away
