"""The exact command lines of a study, the same on every target. Torch-free."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from eval.config import evaluation_class
from launch.plan.targets import LocalTarget, SlurmTarget, Target, TorchrunTarget, cores, visible_gpus
from pretrain.config import DataConfig
from pretrain.configio import override_text

# The configuration that a point was asked to run with, in its directory; config.yaml is what the run itself writes.
REQUESTED_FILE = "requested.yaml"
# Otherwise torchrun restarts ranks on a store that still holds the addresses of the ranks that died.
ANOTHER_STORE = ("env", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1")


def training_command(directory: Path, target: Target, *, node_rank: int = 0) -> tuple[str, ...]:
    """The run whose ``requested.yaml`` lies in ``directory``: all its ranks, or those of one node.

    On Slurm it is the command of a single rank; srun starts all of them.
    """
    run = ("-m", "pretrain", str(directory / REQUESTED_FILE), f"run.directory={override_text(str(directory))}")
    match target:
        case LocalTarget():
            return (sys.executable, *_standalone(target.ranks, target.restarts), *run)
        case TorchrunTarget():
            return (*ANOTHER_STORE, sys.executable, *_connected(target, directory.name, node_rank), *run)
        case SlurmTarget():
            return (sys.executable, *run)
        case _:
            assert_never(target)


def _standalone(ranks: int, restarts: int = 0) -> tuple[str, ...]:
    """torchrun for the ranks of one machine; none for one rank, since it would double the time to start."""
    if ranks == 1:
        return ()
    again = (f"--max-restarts={restarts}",) if restarts else ()
    return ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *again)


def _connected(target: TorchrunTarget, run_id: str, node_rank: int) -> tuple[str, ...]:
    """torchrun for the ranks of one of several nodes."""
    common = (f"--nproc-per-node={target.ranks_per_node}", f"--max-restarts={target.restarts}")
    if target.rendezvous == "static":
        where = (f"--master-addr={target.master_address}", f"--master-port={target.master_port}")
        nodes = (f"--nnodes={target.nodes}", f"--node-rank={node_rank}")
        return ("-m", "torch.distributed.run", *nodes, *common, *where)
    span = f"{target.min_nodes}:{target.nodes}" if target.min_nodes else str(target.nodes)
    endpoint = f"--rdzv-endpoint={target.master_address}:{target.master_port}"
    patience = f"join_timeout={target.join_timeout_s},read_timeout={target.join_timeout_s}"
    conf = f"--rdzv-conf=is_host={int(node_rank == 0)},{patience}"
    meeting = ("--rdzv-backend=c10d", endpoint, f"--rdzv-id={run_id}", conf)
    return ("-m", "torch.distributed.run", f"--nnodes={span}", *common, *meeting)


def evaluation_ranks(target: Target, task: str) -> int:
    """Processes of one evaluation."""
    return target.evaluation_ranks if evaluation_class(task).shared else 1


def probe_command(run_directory: Path, task: str, overrides: Sequence[str], target: Target) -> tuple[str, ...]:
    """One evaluation of the run in ``run_directory``; on Slurm the command of a single rank."""
    torchrun = () if isinstance(target, SlurmTarget) else _standalone(evaluation_ranks(target, task))
    return (sys.executable, *torchrun, "-m", "eval", task, str(run_directory), *overrides)


def report_command(study_directory: Path) -> tuple[str, ...]:
    """The report of the study."""
    return (sys.executable, "-m", "eval", "report", str(study_directory))


def data_command(data: DataConfig) -> tuple[str, ...]:
    """The command that writes the data of a run."""
    return (sys.executable, "-m", "pretrain.data.write_beton", data.dataset, str(data.directory))


def command_line(command: Sequence[str]) -> str:
    """``command`` as one line for a shell; ``python`` stands for the Python that runs this, wherever it lies."""
    return shlex.join(["python" if part == sys.executable else part for part in command])


def job_environment(*, processes: int, side_by_side: int = 1, first_gpu: int | None = None) -> dict[str, str]:
    """Variables of a job of ``processes`` processes, one of ``side_by_side`` such jobs on this machine.

    Each process gets its share of the cores, at least one. With ``first_gpu``, the job sees as many GPUs as it has
    processes, from that one on; where there are fewer, numbering starts again at the first.
    """
    variables = {
        "OMP_NUM_THREADS": str(max(1, cores() // (processes * side_by_side))),
        "PYTHONUNBUFFERED": "1",
    }
    gpus = visible_gpus()
    if gpus and first_gpu is not None:
        own = [gpus[(first_gpu + number) % len(gpus)] for number in range(processes)]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(own))
    return variables
