"""The semantic cache: an earlier answer for a question of the same meaning, within a budget of false hits."""

from kaizen.inference.semantic.book import Counts, EvidenceBook
from kaizen.inference.semantic.layer import Rules, SemanticCache
from kaizen.inference.semantic.lookup import Questions

__all__ = ["Counts", "EvidenceBook", "Questions", "Rules", "SemanticCache"]
