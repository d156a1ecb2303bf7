"""Speed of this package against a reference, and the difference between their results."""

# Nothing here imports torch: the processes of sides must set up the allocator before that.
from benchmarks.speed.alternation import Comparison, Row, Side, measure
from benchmarks.speed.workload import Unavailable, Workload


__all__ = ["Comparison", "Row", "Side", "Unavailable", "Workload", "measure"]
