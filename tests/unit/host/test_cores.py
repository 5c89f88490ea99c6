"""Which cores may a host use?"""

import pytest

from clipper_agents.host.app import cores_of

HERE = {0, 2, 4, 6}


@pytest.mark.parametrize(("cpus", "count"), [(0.01, 1), (1.0, 1), (1.99, 1), (2.0, 2), (4.0, 4), (1000.0, 4)])
def test_whole_cores_at_least_one_and_no_more_than_there_are_and_the_same_at_each_start(cpus, count):
    cores = cores_of(cpus, "host.svm.1.0", HERE)
    assert len({*cores}) == count
    assert {*cores} <= HERE
    assert cores == cores_of(cpus, "host.svm.1.0", HERE)


def test_hosts_do_not_all_take_the_same_core():
    taken = [core for number in range(200) for core in cores_of(1.0, f"host.svm.{number}.0", HERE)]
    assert {taken.count(core) for core in HERE} <= set(range(25, 80))
