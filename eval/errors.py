"""What cannot be evaluated, said to a person. Torch-free."""

from __future__ import annotations


class EvaluationError(RuntimeError):
    """An evaluation that cannot be done, with where, why, and what to do."""
