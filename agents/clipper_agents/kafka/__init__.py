"""Kafka as this project uses it: readers, followers, transactions, retries and administration, apart from Faust."""
