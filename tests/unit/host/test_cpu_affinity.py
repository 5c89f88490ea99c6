import subprocess
import sys

import pytest

from clipper_agents.host.cpu_affinity import cores_of, thread_variables

HERE = {0, 2, 4, 6}


@pytest.mark.parametrize(("cpus", "count"), [(0.01, 1), (1.0, 1), (1.99, 1), (2.0, 2), (4.0, 4), (1000.0, 4)])
def test_whole_cores_at_least_one_and_no_more_than_there_are(cpus, count):
    cores = cores_of(cpus, "host.svm.1.0", HERE)
    assert len(cores) == count
    assert cores <= HERE


def test_hosts_do_not_all_take_the_same_core():
    taken = [core for number in range(200) for core in cores_of(1.0, f"host.svm.{number}.0", HERE)]
    assert {taken.count(core) for core in HERE} <= set(range(25, 80))


def test_a_name_has_the_same_cores_at_each_start():
    assert cores_of(2.0, "h", HERE) == cores_of(2.0, "h", HERE)


def test_numeric_libraries_get_as_many_threads_as_cores_rounded_up():
    assert {*thread_variables(0.5).values()} == {"1"}
    assert {*thread_variables(2.1).values()} == {"3"}


LIMITED = "from clipper_agents.host.cpu_affinity import limit_cores\nlimit_cores({}, 'h')\n"
COUNT = "import os\nprint(len(os.sched_getaffinity(0)))"


@pytest.mark.parametrize(("cpus", "cores"), [("0.5", lambda there: 1), ("None", lambda there: there)])
def test_the_limit_holds_for_the_process(cpus, cores):
    def printed(code):
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    assert printed(LIMITED.format(cpus) + COUNT) == cores(printed(COUNT))
