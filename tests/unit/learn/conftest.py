"""A house for tests of what learns: an App whose model is scripted, and a way to run work inside a run."""

from __future__ import annotations

from tests.unit.conftest import house as house
from tests.unit.learn.optimize.conftest import bench as bench
