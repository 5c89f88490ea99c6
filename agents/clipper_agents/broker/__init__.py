"""An Apache Kafka of one node, without Docker: for a laptop, a demonstration and the tests.

[runtime]: Java, jars  --->  [node]: [data_dir], [properties] and a guard  <---  [embedded_kafka]: ports
"""

from clipper_agents.broker.data_dir import BrokerNotStarted
from clipper_agents.broker.embedded_kafka import EmbeddedBroker
from clipper_agents.broker.runtime import KAFKA_VERSION

__all__ = ["KAFKA_VERSION", "BrokerNotStarted", "EmbeddedBroker"]
