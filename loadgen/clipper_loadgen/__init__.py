"""Load on a pipeline, and what became of it: an ordinary client of the topics that sends queries and reads answers.

`run_load(plan, connection, catalogue)` runs one `LoadPlan` and gives a `LoadReport`.
"""

from clipper_loadgen.datasets import Dataset
from clipper_loadgen.plan import LoadPlan
from clipper_loadgen.report import LoadReport
from clipper_loadgen.run import run_load

__all__ = ["Dataset", "LoadPlan", "LoadReport", "run_load"]
