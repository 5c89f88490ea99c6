"""The operator's console: pages on the gateway that show a deployment as it is, and what it was for two days."""
