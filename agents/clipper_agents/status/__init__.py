"""What an operator sees of a deployment at one moment, read from Kafka alone, and what of it is wrong."""
