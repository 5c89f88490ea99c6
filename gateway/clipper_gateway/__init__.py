"""The gateway: HTTP and gRPC in front of the topics."""

import os

# read when grpc is imported: its lines are none of this project's logs, and any caller can cause them
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
