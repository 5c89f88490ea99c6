"""The gateway: HTTP and gRPC in front of the topics."""
