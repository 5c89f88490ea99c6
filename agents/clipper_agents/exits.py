"""Exit codes of the command line program and of its workers."""

OK = 0
FAILURE = 1
"""The request failed, or something unforeseen happened: trying again may help."""
USAGE = 2
"""The command line is wrong."""
SETUP = 3
"""A setting, manifest, model or address is wrong and has to be changed first: a supervisor does not try again."""
CRASHED = 4
"""A worker could not go on, for example because its partitions moved meanwhile: its supervisor starts it again."""
REFUSED = 5
"""The query or the feedback is at fault: sent again as it is, it has the same outcome."""
ORPHAN = 6
"""The feedback is about no query that is known."""
REPEATED = 7
"""An earlier feedback about the query counts."""
INTERRUPTED = 130
"""Ctrl-C, 128 + SIGINT."""
