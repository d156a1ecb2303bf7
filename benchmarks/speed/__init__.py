"""Speed of this package against the reference that a user has today: measured in turns, results compared."""

# What needs torch is not imported here: processes of sides begin with this, and set the allocator up before that.
from benchmarks.speed.alternation import Comparison, Row, Side, measure
from benchmarks.speed.workload import Unavailable, Workload


__all__ = ["Comparison", "Row", "Side", "Unavailable", "Workload", "measure"]
