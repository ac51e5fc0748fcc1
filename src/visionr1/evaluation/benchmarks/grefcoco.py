"""gRefCOCO (Liu et al., arXiv 2306.00968): expressions of one object, of several, or of none."""

from __future__ import annotations

from functools import partial

from visionr1.evaluation.benchmarks import Benchmark
from visionr1.evaluation.benchmarks.refcoco import find_refer
from visionr1.evaluation.metrics.grec import GREC

BENCHMARK = Benchmark(name="grefcoco", find=partial(find_refer, "grefcoco", {}), metric=GREC)
