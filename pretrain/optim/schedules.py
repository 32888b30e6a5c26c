"""Learning rate of a global batch and of a step. Torch-free."""

import math
from typing import Literal


def learning_rate(rule: Literal["linear", "sqrt", "constant"], base: float, global_batch_size: int) -> float:
    """Peak learning rate: base * B / 256 (linear), base * sqrt(B) (sqrt; SimCLR appendix B.1) or base (constant)."""
    match rule:
        case "linear":
            return base * global_batch_size / 256
        case "sqrt":
            return base * math.sqrt(global_batch_size)
        case "constant":
            return base


def lr_at(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of the step after ``step`` finished ones: linear warm-up from 0, then cosine to 0, per step."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
