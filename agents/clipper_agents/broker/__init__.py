"""An Apache Kafka of one's own, without Docker: for a laptop, a demonstration and the tests.

[runtime]: Java, jars  --->  [node]: [properties], [process] and its guard, [readiness]  <---  [embedded_kafka]
  BrokerNotStarted           BrokerNotStarted (the log file is named)                          one, or several
"""

from clipper_agents.broker.embedded_kafka import EmbeddedBroker, EmbeddedCluster
from clipper_agents.broker.errors import BrokerNotStarted
from clipper_agents.broker.runtime import KAFKA_VERSION

__all__ = ["KAFKA_VERSION", "BrokerNotStarted", "EmbeddedBroker", "EmbeddedCluster"]
