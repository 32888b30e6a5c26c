"""Where the runs of a study run: this machine, nodes that torchrun connects, or a Slurm cluster. Torch-free."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pretrain.configio import PositiveFloat, PositiveInt, Section

NonNegativeInt = Annotated[int, Field(ge=0)]
# Slurm checks time limits twice a minute, so it may send the signal this much too early.
SIGNAL_EARLY_S = 30


class Hardware(Section):
    """One GPU and its links, for the forecasts of `launch plan`; by default an H100, NVLink, 400 Gb/s InfiniBand.

    images_per_second: of one GPU in training, both views counted as one image; null: measured on the study's finished
    runs. Bandwidths are those of one GPU, in one direction.
    """

    gpu_memory_gb: PositiveFloat = 80.0  # of one GPU
    images_per_second: PositiveFloat | None = None
    nvlink_gb_per_s: PositiveFloat = 350.0  # within a node
    nvlink_latency_us: PositiveFloat = 4.0  # of a collective within a node, for each step of its ring
    network_gb_per_s: PositiveFloat = 45.0  # between nodes
    network_latency_us: PositiveFloat = 10.0  # between nodes
    loss_tflops: PositiveFloat = 60.0  # at which the products of the loss run


class LocalTarget(Section):
    """This machine: ``ranks`` processes for each run, ``concurrent_runs`` runs side by side.

    concurrent_runs: ``auto`` for as many as there are GPUs for (cores, where there are no GPUs).
    evaluation_ranks: processes of an evaluation that several can share.
    restarts: how often torchrun restarts a run after the death of a rank.
    """

    name: Literal["local"] = "local"
    ranks: PositiveInt = 1  # processes of each run
    concurrent_runs: PositiveInt | Literal["auto"] = 1
    evaluation_ranks: PositiveInt = 1
    restarts: NonNegativeInt = 2
    # Evaluate a point while the next one trains; null: yes, unless the two would share a GPU.
    overlap_probes: bool | None = None
    hardware: Hardware = Hardware()

    @property
    def ranks_per_node(self) -> int:
        return self.ranks

    @model_validator(mode="after")
    def _evaluations_fit(self) -> LocalTarget:
        _fits(self.evaluation_ranks, self.ranks, "ranks")
        return self


class TorchrunTarget(Section):
    """``nodes`` machines that share a file system, ``ranks_per_node`` processes on each, connected by torchrun.

    node_rank: number of this node; the study then runs here, and needs the same command on every other node. Without
    it the commands are only printed. rendezvous: with ``c10d`` nodes may leave and join (down to ``min_nodes``),
    ``static`` is the older master address and port. evaluation_ranks: processes of the first node for an evaluation
    that several can share.
    """

    name: Literal["torchrun"]
    nodes: PositiveInt = 2  # machines
    min_nodes: PositiveInt | None = None  # fewest to go on with; null: all
    ranks_per_node: PositiveInt = 8  # one a GPU
    master_address: str  # host name of the first node
    master_port: Annotated[int, Field(gt=0, lt=65536)] = 29500  # free on the first node
    rendezvous: Literal["c10d", "static"] = "c10d"
    node_rank: NonNegativeInt | None = None
    evaluation_ranks: PositiveInt = 1
    restarts: NonNegativeInt = 2  # after the death of a rank
    join_timeout_s: PositiveInt = 86_400  # a day: the other nodes wait while the first one evaluates
    hardware: Hardware = Hardware()

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node

    @model_validator(mode="after")
    def _consistent(self) -> TorchrunTarget:
        if self.node_rank is not None and self.node_rank >= self.nodes:
            raise ValueError(f"got node_rank {self.node_rank}, expected 0 to {self.nodes - 1} with {self.nodes} nodes")
        if self.min_nodes is not None and (self.rendezvous == "static" or self.min_nodes > self.nodes):
            raise ValueError(f"got min_nodes {self.min_nodes}, expected at most {self.nodes}, and rendezvous: c10d")
        _fits(self.evaluation_ranks, self.ranks_per_node, "ranks_per_node")
        return self


class EvaluationResources(Section):
    """Resources of one evaluation, on one node.

    ranks: processes of an evaluation that several can share; others have one. gpus: null for one GPU a process where
    runs have GPUs. cpus: of each process.
    """

    ranks: PositiveInt = 1
    gpus: NonNegativeInt | None = None
    cpus: PositiveInt = 8
    memory_gb: PositiveFloat | None = None  # of the node
    time_limit_min: PositiveInt = 240  # of an evaluation
    partition: str | None = None  # null: that of the runs


class SlurmTarget(Section):
    """A Slurm cluster, through submitit: each run is an element of a job array, one task for each rank.

    gpus_per_node: null for one a rank, 0 for none. concurrent_runs: elements of the array that run at once. sbatch:
    further options, e.g. {exclude: n17, exclusive: true}; null removes one that is set here. setup: shell lines before
    srun. container: a prefix of ``python``, e.g. ``apptainer exec --nv image.sif``. requeue: Slurm restarts runs that
    were preempted, ran out of time or lost a node. max_attempts: how often `launch study` submits a job that fails.
    """

    name: Literal["slurm"]
    nodes: PositiveInt = 1  # of each run
    ranks_per_node: PositiveInt = 8  # one a GPU
    gpus_per_node: NonNegativeInt | None = None
    cpus_per_rank: PositiveInt = 8  # threads that render images among them
    memory_gb: PositiveFloat | None = None  # per node
    time_limit_min: PositiveInt = 1440  # of a run; it saves ahead of it and is requeued
    signal_delay_s: PositiveInt = 120  # how long before the limit a run is asked to save
    partition: str | None = None  # null: the default one
    account: str | None = None  # that pays
    qos: str | None = None  # quality of service
    constraint: str | None = None  # features that nodes must have
    requeue: bool = True
    concurrent_runs: PositiveInt = 8
    sbatch: dict[str, Any] = Field(default={})
    srun: list[str] = Field(default=[])  # further options of srun
    setup: list[str] = Field(default=[])
    container: str | None = None
    python: str | None = None  # null: the one that runs the launcher
    evaluation: EvaluationResources = EvaluationResources()
    max_attempts: PositiveInt = 3
    hardware: Hardware = Hardware()

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node

    @property
    def gpus(self) -> int:
        """GPUs of a node."""
        return self.ranks_per_node if self.gpus_per_node is None else self.gpus_per_node

    @property
    def evaluation_ranks(self) -> int:
        return self.evaluation.ranks

    @field_validator("sbatch")
    @classmethod
    def _long_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        wrong = [key for key in value if key.startswith("-") or "=" in key or not key]
        if wrong:
            raise ValueError(f"got {', '.join(wrong)}, expected long option names without dashes, e.g. exclude: n17")
        return value

    @field_validator("container")
    @classmethod
    def _runs_commands(cls, value: str | None) -> str | None:
        if value is not None and len(value.split()) < 2:
            raise ValueError(f"got '{value}', expected what stands ahead of python, e.g. apptainer exec --nv image.sif")
        return value

    @model_validator(mode="after")
    def _time_to_save(self) -> SlurmTarget:
        limit_s = 60 * self.time_limit_min
        if limit_s < self.signal_delay_s + SIGNAL_EARLY_S:
            raise ValueError(
                f"got time_limit_min {self.time_limit_min} with signal_delay_s {self.signal_delay_s}, expected a limit "
                f"of at least {self.signal_delay_s + SIGNAL_EARLY_S} s: otherwise a run is asked to stop as it starts"
            )
        if self.gpus and self.gpus < self.ranks_per_node:
            raise ValueError(
                f"got gpus_per_node {self.gpus}, expected at least ranks_per_node ({self.ranks_per_node}): one each"
            )
        if self.evaluation.gpus and self.evaluation.gpus < self.evaluation.ranks:
            raise ValueError(
                f"got evaluation.gpus {self.evaluation.gpus}, expected at least evaluation.ranks "
                f"({self.evaluation.ranks}): one each"
            )
        return self


def _fits(evaluation_ranks: int, ranks: int, name: str) -> None:
    if evaluation_ranks > ranks:
        raise ValueError(f"got evaluation_ranks {evaluation_ranks}, expected at most {name} ({ranks})")


Target = Annotated[LocalTarget | TorchrunTarget | SlurmTarget, Field(discriminator="name")]


def on_ranks(target: Target, ranks: int | None) -> Target:
    """``target`` with so many ranks a run, where it is this machine and they are given; else as it is."""
    return target.model_copy(update={"ranks": ranks}) if ranks and isinstance(target, LocalTarget) else target


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> tuple[str, ...]:
    """Names of the GPUs that a job started here would see; empty where there is none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return tuple(itertools.takewhile(lambda name: name and not name.startswith("-"), names))  # as CUDA reads it
    found = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(sorted(found, key=int))


def side_by_side(target: LocalTarget) -> int:
    """How many runs train at once: as asked, or as many as there are GPUs for (cores, where there are no GPUs)."""
    if target.concurrent_runs != "auto":
        return target.concurrent_runs
    return max(1, (len(visible_gpus()) or cores()) // target.ranks)


def overlaps(target: LocalTarget) -> bool:
    """Whether a point is evaluated while the next one trains: as asked, else unless they would share a GPU.

    Without GPUs it is faster even where training uses every core: most of a short evaluation is start-up on one core.
    """
    if target.overlap_probes is not None:
        return target.overlap_probes
    gpus = len(visible_gpus())
    return gpus == 0 or gpus >= target.ranks * side_by_side(target) + target.evaluation_ranks
