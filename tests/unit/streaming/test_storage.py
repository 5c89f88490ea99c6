"""What is wrong with a disk is said in one line that names the place and what to do."""

import errno
import os
import threading
from pathlib import Path

import pytest

from clipper_agents.streaming.storage import (
    StorageFailed,
    StorageRefused,
    claim,
    discard_stale_folders,
    explained,
    not_started,
    storage_failed,
)
from clipper_stream.errors import SetupError

DATA = Path("/data")


@pytest.mark.parametrize(
    ("number", "wrong", "remedy", "kind"),
    [
        (errno.ENOSPC, "no space", "free some", StorageFailed),
        (errno.EDQUOT, "no space", "free some", StorageFailed),
        (errno.EFBIG, "no space", "free some", StorageFailed),
        (errno.EROFS, "read-only", "mount it for writing", StorageRefused),
        (errno.EACCES, "may not write", "owner", StorageRefused),
        (errno.ENOTDIR, "a file is where", "move the file", StorageRefused),
        (errno.EMFILE, "too many files", "ulimit -n", StorageFailed),
        (errno.ENOENT, "vanished", "put the disk back", StorageRefused),
    ],
)
def test_the_operating_systems_errors_and_rocksdbs_messages_are_told_alike(number, wrong, remedy, kind):
    """Only what may be over at the next start is worth another one."""
    error = OSError(number, os.strerror(number))
    message = f"IO error: While appending to file: /data/000007.log: {os.strerror(number)}"
    for told in (storage_failed(DATA, error), storage_failed(DATA, message), not_started(DATA, error)):
        place, said, to_do = str(told).split(": ", 2)
        assert (place, wrong in said, remedy in to_do) == ("/data", True, True)
    assert type(told) is kind
    assert not issubclass(StorageFailed, SetupError)


def test_what_is_not_known_is_told_in_its_own_words():
    assert explained(DATA, "Busy: try again") is None
    assert "/data: Busy: try again: look at the disk" in str(storage_failed(DATA, "Busy: try again"))


def test_a_directory_is_made_claimed_and_refused_to_others_until_its_process_ends(tmp_path):
    place = tmp_path / "a" / "b"
    descriptor = claim(place)
    assert f"process {os.getpid()} on " in (place / "in-use").read_text()
    with pytest.raises(StorageRefused, match=f"{place}: process {os.getpid()} on .* uses it: .*--instance"):
        claim(place, wait_s=0.0)
    threading.Timer(0.05, os.close, [descriptor]).start()
    os.close(claim(place, wait_s=30.0))


def test_a_place_that_cannot_be_a_directory_is_for_an_operator(tmp_path):
    """Nobody may make one in /proc/self, root neither."""
    (tmp_path / "data").write_text("")
    for place in (tmp_path / "data", tmp_path / "data" / "router-0", Path("/proc/self/data")):
        with pytest.raises(StorageRefused, match=f"{place}: "):
            claim(place)


def test_what_was_read_from_other_topics_is_deleted(tmp_path: Path) -> None:
    index = tmp_path / "decisions"

    def left(**topics: bytes) -> bool:
        (index / "0").mkdir(parents=True, exist_ok=True)
        discard_stale_folders(tmp_path, topics, [index, tmp_path / "absent"])
        return index.is_dir()

    assert not left(queries=b"a"), "nobody knows of which topics this was"
    assert left(queries=b"a")
    assert not left(queries=b"b")
    (tmp_path / "topics").unlink()
    (tmp_path / "topics").mkdir()
    with pytest.raises(StorageFailed):
        left(queries=b"b")
