"""The exact cache: identical calls answered from what was answered before, or from the call that is in the air."""

from kaizen.inference.exact.layer import ExactCache, ExactCounts

__all__ = ["ExactCache", "ExactCounts"]
