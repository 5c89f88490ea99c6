"""Models that do whatever a model can do; what they do to a row is said by its first number."""

import ctypes
import os
import threading
import time
from functools import reduce
from pathlib import Path

import numpy as np

FINE, RAISES, NAN, INFINITE, A_SET, TOO_FEW, LEAVES, ESCAPES, WRITES, SHOUTS, NESTED, SLOW = range(12)
EXITS, CRASHES, HANGS, LOCKS = range(101, 105)
KEPT = []


class Escape(BaseException):
    """No Exception."""


def wild(rows):
    """The sum of each row, and a misdeed for each row that asks for one."""
    kinds = rows[:, 0].astype(int).tolist()
    if TOO_FEW in kinds:
        return [0.0] * (len(rows) - 1)
    if WRITES in kinds:
        rows += 1000
    errors = {
        RAISES: ValueError("a row that this model cannot stand"), WRITES: ValueError("after writing into the rows"),
        LEAVES: SystemExit(0), ESCAPES: Escape(),
    }  # fmt: skip
    for kind in errors.keys() & {*kinds}:
        raise errors[kind]
    if SHOUTS in kinds:
        for number in range(2000):
            print("ready metrics=1", "shout" * 20, number)  # noqa: T201 - what a model does
    if SLOW in kinds:
        time.sleep(10)
    odd = {
        NAN: float("nan"),
        INFINITE: float("inf"),
        A_SET: {1, 2},
        NESTED: reduce(lambda inner, _: [inner], range(1000)),
    }
    return [odd.get(kind, float(total)) for kind, total in zip(kinds, rows.sum(axis=1), strict=True)]


def deadly(rows):
    """The sum of each row; some rows end the process, and some its threads."""
    kinds = rows[:, 0].astype(int).tolist()
    if EXITS in kinds:
        os._exit(0)
    if CRASHES in kinds:
        ctypes.string_at(0)
    if HANGS in kinds:
        threading.Event().wait()
    if LOCKS in kinds:
        ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the interpreter lock
    return rows.sum(axis=1)


def hoarder(rows):
    """The sum of each row, and 8 MiB that are never given back: a drain takes seconds, and has room."""
    KEPT.append(np.ones(1 << 20))
    if rows[0, 0] == RAISES:
        KEPT.append(np.ones(4 << 27))  # 4 GiB
    return rows.sum(axis=1)


def steady(rows):
    return rows.sum(axis=1)


BAD_MOOD = Path(os.environ.get("MOODY_FILE", "nowhere")).exists()


class Moody:
    """Starts only while a file does not exist."""

    def __init__(self):
        if BAD_MOOD:
            os._exit(7)

    def predict_batch(self, rows):
        return rows.sum(axis=1)
