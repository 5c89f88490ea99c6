import resource

import pytest
from builders.host import asked

from clipper_agents.host.batching import HostBatcher, RowSpan
from clipper_agents.host.poison_rows import JOURNAL_BYTES, PoisonRows
from clipper_agents.streaming.storage import StorageFailed
from clipper_stream.batching.limits import Fixed
from clipper_stream.batching.window import Window


def marked(poison_rows, request):
    poison_rows.mark(request)
    return request


def died(folder, *spans):
    """A process that ends while these rows are in the model."""
    PoisonRows(folder).begin(spans)


def test_a_process_that_ends_between_batches_leaves_no_suspects(tmp_path):
    one = PoisonRows(tmp_path)
    one.begin([RowSpan(asked([1, 2]), 0, 2)])
    one.end()
    assert PoisonRows(tmp_path).found == []
    assert not marked(PoisonRows(tmp_path), asked([1, 2])).apart


def test_rows_that_were_in_a_death_are_asked_alone_and_others_together(tmp_path):
    died(tmp_path, RowSpan(asked([1, 2, 3, 4], frame=7), 1, 3))
    suspects = PoisonRows(tmp_path)
    core = HostBatcher(Window(0.0), Fixed(10))
    core.admit(marked(suspects, asked([1, 2, 3, 4], frame=7)), 0.0)
    core.admit(marked(suspects, asked([5, 6], frame=8)), 0.0)
    batches = []
    while (step := core.step(0.0)).spans:
        batches.append(list(step.inputs))
        assert suspects.begin(step.spans) is None
    assert sorted(batches, key=len) == [[2], [3], [1, 4, 5, 6]]


def test_a_row_alone_in_a_second_death_is_refused_and_its_neighbours_are_not(tmp_path):
    died(tmp_path, RowSpan(asked([1, 2, 3], frame=7), 0, 3))
    died(tmp_path, RowSpan(asked([1, 2, 3], frame=7), 1, 2))
    guard = PoisonRows(tmp_path)
    assert guard.begin([RowSpan(asked([1, 2, 3], frame=7), 0, 1)]) is None
    guard.end()
    assert "died 2 times with this row in it" in guard.begin([RowSpan(asked([1, 2, 3], frame=7), 1, 2)])
    assert guard.begin([RowSpan(asked([1, 2, 3], frame=8), 1, 2)]) is None, "another frame"


def test_a_refused_row_is_no_death_of_its_own(tmp_path):
    for _ in range(2):
        died(tmp_path, RowSpan(asked([1], frame=7), 0, 1))
    PoisonRows(tmp_path).begin([RowSpan(asked([1], frame=7), 0, 1)])
    assert PoisonRows(tmp_path).found == []


def test_the_journal_has_its_room_on_the_disk_from_the_start(tmp_path):
    for _ in range(2):
        PoisonRows(tmp_path)
        assert (tmp_path / "in-model").stat().st_blocks * 512 >= JOURNAL_BYTES


def test_a_disk_without_room_for_the_journal_is_told_in_a_line(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (JOURNAL_BYTES // 2, before[1]))
    try:
        with pytest.raises(StorageFailed, match=f"{tmp_path}: no space is left .*: free some"):
            PoisonRows(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_remembered_is_bounded(tmp_path):
    died(tmp_path, *(RowSpan(asked([number], frame=2**60 + number), 0, 1) for number in range(20_000)))
    found = PoisonRows(tmp_path).found
    assert 1000 < len(found) < 20_000
    assert (tmp_path / "in-model").stat().st_size == JOURNAL_BYTES


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x10\x00\x00\x00" + b"\x91" * 16, b"\x05\x00\x00\x00hello"])
def test_a_journal_that_is_none_of_ours_is_forgotten(tmp_path, content):
    (tmp_path / "in-model").write_bytes(content)
    (tmp_path / "suspects").write_bytes(content)
    assert PoisonRows(tmp_path).found == []
