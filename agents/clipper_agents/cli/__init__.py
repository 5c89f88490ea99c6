"""The command line program `clipper-stream`: one command a module.

Rules of this package:
- Results go to standard output, everything else to standard error.
- A module imports what it runs inside its command, so that `--help` needs nothing of Kafka, numpy or Faust.
"""
