"""Where Faust's own log lines go: under `faust`, where they are filtered like those of any library."""

import logging

LIBRARY = logging.getLogger("faust.services")
"""Set as `logger` of each class that is put on a plug point. mode would name it after our module, and then the start
and stop of every service, with tables of offsets, would stand among the few lines that this project writes."""
