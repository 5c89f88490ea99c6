import numpy as np
import pytest

from clipper_loadgen.datasets import MAX_RANDOM_BYTES, Dataset, load_dataset, random_dataset
from clipper_stream.errors import InvalidSetting
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.query.inputs import to_matrix
from clipper_topics.manifests import ColumnSpec, InputSpec


def test_random_rows_have_the_shape_of_the_spec_are_all_different_those_of_their_seed_and_bounded():
    spec = InputSpec(dtype="float32", shape=[4, 3])
    rows, same, other = (np.array(random_dataset(spec, 500, seed=seed).rows) for seed in (0, 0, 1))
    assert rows.shape == (500, 4, 3)
    assert len(np.unique(rows, axis=0)) == 500
    assert (rows == same).all()
    assert (rows != other).any()
    large = random_dataset(InputSpec(shape=[512, 512]), 10_000, seed=0).rows
    assert len(large) == MAX_RANDOM_BYTES // (8 * 512 * 512)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("float64", float), ("int64", int), ("uint8", int), ("text", str), ("bytes", dict), ("json", dict)],
)
def test_random_rows_are_of_the_kind_that_a_query_of_the_spec_has(dtype, kind):
    row = random_dataset(InputSpec(dtype=dtype, shape=None), 3, seed=0).row(0)
    assert isinstance(row[0] if isinstance(row, list) else row, kind)


def test_random_rows_of_a_table_have_a_value_of_each_column():
    columns = [ColumnSpec(name="age"), ColumnSpec(name="plan", dtype="text"), ColumnSpec(name="since", dtype="date")]
    rows = random_dataset(InputSpec(dtype="table", columns=columns), 300, seed=0).rows
    spec = RowSpec.of(InputSpec(dtype="table", columns=columns))
    assert len(to_matrix(spec, rows)) == 300
    assert len({row["age"] for row in rows}) > 200


def test_rows_come_from_an_npy_file_and_a_line_is_a_row_or_a_row_with_its_label(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(6.0).reshape(3, 2))
    dataset = load_dataset(str(tmp_path / "rows.npy"))
    assert [dataset.row(i) for i in range(3)] == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    (tmp_path / "rows.jsonl").write_text("[1, 2]\n\n[3, 4]\n")
    (tmp_path / "labelled.jsonl").write_text('{"input": "a", "label": 1}\n{"input": "b", "label": 0}\n')
    assert load_dataset(str(tmp_path / "rows.jsonl")).rows == [[1, 2], [3, 4]]
    labelled = load_dataset(str(tmp_path / "labelled.jsonl"))
    assert (labelled.rows, labelled.labels) == (["a", "b"], [1, 0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "cannot be read"),
        ("text.npy", b"no array", "cannot be read"),
        ("half.jsonl", b'{"input": 1, "label": 1}\n{"input": 2}\n', "fields of the first"),
        ("broken.jsonl", b"{", "cannot be read"),
        ("empty.jsonl", b"", "no rows"),
        ("rows.csv", b"1,2", r"use a \.npy or"),
    ],
)
def test_a_file_that_gives_no_rows_is_refused_with_the_reason(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidSetting, match=message):
        load_dataset(str(tmp_path / name))


def test_another_number_of_labels_than_rows_is_refused():
    with pytest.raises(InvalidSetting, match="1 labels for 2 rows"):
        Dataset(rows=[1, 2], labels=[0])
