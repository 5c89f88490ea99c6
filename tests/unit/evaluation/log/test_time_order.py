import dataclasses

import numpy as np
from builders.known_truth import log_of

from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.parquet import FileFacts, writing
from clipper_stream.evaluation.log.time_order import read_in_time_order

FACTS = FileFacts(application="digits", loss_kind="zero_one")


def of_partition(columns, number):
    mine = columns.take(np.arange(len(columns)) % 3 == number)
    return dataclasses.replace(mine, partition=np.full(len(mine), number, np.int32))


def test_a_file_of_partitions_is_read_in_the_order_of_time(tmp_path):
    whole, _ = log_of(900, contexts=3)
    with writing(tmp_path / "log.parquet", FACTS) as writer:
        for number in range(3):
            mine = of_partition(whole, number)
            for start in range(0, len(mine), 70 + number):
                writer.write(mine.take(slice(start, start + 70 + number)))
    found = DecisionColumns.concatenated(read_in_time_order(tmp_path / "log.parquet"))
    assert found.offset.tolist() == whole.offset.tolist()
    assert np.array_equal(found.of_models(whole.models).loss, whole.loss, equal_nan=True)


def test_chunks_of_several_partitions_are_parted(tmp_path):
    whole, _ = log_of(300)
    mixed = DecisionColumns.concatenated([of_partition(whole, number) for number in (2, 0, 1)])
    with writing(tmp_path / "log.parquet", FACTS) as writer:
        writer.write(mixed)
    assert DecisionColumns.concatenated(read_in_time_order(tmp_path / "log.parquet")).offset.tolist() == list(
        range(300)
    )


def test_only_what_is_wanted_is_read(tmp_path):
    whole, _ = log_of(50)
    with writing(tmp_path / "log.parquet", FACTS) as writer:
        writer.write(whole)
    found = DecisionColumns.concatenated(read_in_time_order(tmp_path / "log.parquet", {"loss"}))
    assert np.isnan(found.answer_loss).all()
    assert found.at_ms.tolist() == whole.at_ms.tolist()
