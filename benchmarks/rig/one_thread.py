"""Import this before numpy: one thread for its libraries, as in a host's process."""

import os

from clipper_agents.threads import ONE_THREAD

for name, value in ONE_THREAD.items():
    os.environ.setdefault(name, value)
