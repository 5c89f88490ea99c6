"""Starts worker processes, restarts those that fail, and leaves none behind.

    Deployment --> Supervisor --> SupervisedProcess (restarts, Backoff) --> ChildProcess (one run) ~~stdin~~> watch
                                                           WorkerTemplate --fork--'

Why a pipe and not a signal: each child reads its standard input, a pipe that only the supervisor holds open. However
the supervisor ends, also by `kill -9`, the pipe closes and the child ends itself. That works on every POSIX system;
`PR_SET_PDEATHSIG` is Linux only and fires when the starting *thread* ends.
"""
