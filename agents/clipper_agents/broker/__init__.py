"""An Apache Kafka of one's own, without Docker: for a laptop, a demonstration and the tests.

[runtime]: Java, jars  --->  [properties]  --->  [process]: JVM and its guard  --->  [readiness]
  BrokerNotStarted                               BrokerNotStarted (the log file is named)
"""

from clipper_agents.broker.embedded import EmbeddedBroker
from clipper_agents.broker.errors import BrokerNotStarted
from clipper_agents.broker.runtime import KAFKA_VERSION

__all__ = ["KAFKA_VERSION", "BrokerNotStarted", "EmbeddedBroker"]
