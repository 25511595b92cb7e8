"""How good an answer is: metrics by name, judges, and several of them weighed together."""

from __future__ import annotations

from kaizen.learn.metrics.measure import Measure as Measure
from kaizen.learn.metrics.measure import Scored as Scored
from kaizen.learn.metrics.metric import metric as metric
