"""An Apache Kafka of one node, without Docker: for a laptop, a demonstration and the tests.

[runtime]: Java, jars  --->  [node]: [data_dir], [properties], [process] and its guard  <---  [embedded_kafka]: ports
"""

from clipper_agents.broker.embedded_kafka import EmbeddedBroker
from clipper_agents.broker.errors import BrokerNotStarted
from clipper_agents.broker.runtime import KAFKA_VERSION

__all__ = ["KAFKA_VERSION", "BrokerNotStarted", "EmbeddedBroker"]
