"""Threads of numeric libraries: one a process."""

ONE_THREAD: dict[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment variables, read when numpy is imported. Several processes share the cores: a library that takes them all
for each batch makes the others wait, and a batch of a few hundred rows gains nothing by it."""
