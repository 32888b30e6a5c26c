"""What torchrun or Slurm's launcher say about ranks: the one place that reads it. Torch-free.

A refusal must not wait for torch, and only the first rank prints it.
"""

from __future__ import annotations

import os


def world_size_from_environment() -> int:
    """Ranks that the launcher promises: WORLD_SIZE, or 1 where there was no launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank_from_environment() -> int:
    """Rank that the launcher gave this process: RANK, or 0 where there was no launcher."""
    return int(os.environ.get("RANK", "0"))


def ranks_per_node_from_environment() -> int:
    """Ranks on this node: torchrun's LOCAL_WORLD_SIZE; all of them where there was no launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size_from_environment()))


def local_rank_from_environment() -> int:
    """Number of this process on its node: LOCAL_RANK, or 0 where there was no launcher."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def restarts_from_environment() -> int:
    """How often torchrun has started the ranks of this node again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
