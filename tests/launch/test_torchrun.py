"""Nodes that torchrun connects: the exact command of each, and nodes that really meet."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launch.local.torchrun import node_commands
from launch.plan.command_lines import command_line, training_command
from launch.plan.config import load_study
from launch.plan.graph import build_graph
from launch.plan.targets import TorchrunTarget
from launch.snapshot import take_snapshot
from pretrain.errors import ConfigError
from tests.launch.conftest import Workplace

ROOT = Path(__file__).resolve().parents[2]
TARGET: dict[str, Any] = {"name": "torchrun", "nodes": 2, "ranks_per_node": 4, "master_address": "gpu07"}
RUN = "-m pretrain runs/x-01/requested.yaml run.directory=runs/x-01"
PATIENCE = "join_timeout=86400,read_timeout=86400"


@pytest.mark.parametrize(
    ("options", "node", "expected"),
    [
        (
            {},
            0,
            "--nnodes=2 --nproc-per-node=4 --max-restarts=2 --rdzv-backend=c10d --rdzv-endpoint=gpu07:29500 "
            f"--rdzv-id=x-01 --rdzv-conf=is_host=1,{PATIENCE}",
        ),
        (
            {"min_nodes": 1, "restarts": 5, "master_port": 30000},
            1,
            "--nnodes=1:2 --nproc-per-node=4 --max-restarts=5 --rdzv-backend=c10d --rdzv-endpoint=gpu07:30000 "
            f"--rdzv-id=x-01 --rdzv-conf=is_host=0,{PATIENCE}",
        ),
        (
            {"rendezvous": "static"},
            1,
            "--nnodes=2 --node-rank=1 --nproc-per-node=4 --max-restarts=2 --master-addr=gpu07 --master-port=29500",
        ),
    ],
)
def test_the_command_of_a_node(options: dict[str, Any], node: int, expected: str) -> None:
    target = TorchrunTarget(**{**TARGET, **options})
    line = command_line(training_command(Path("runs/x-01"), target, node_rank=node))
    assert line == f"env TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 python -m torch.distributed.run {expected} {RUN}"


def test_the_first_node_does_everything_the_others_train(workplace: Workplace) -> None:
    path = workplace.write(target=TARGET)
    graph = build_graph(load_study(path), str(path))
    assert graph.points[0].plan.world_size == 8
    assert isinstance(graph.config.target, TorchrunTarget)
    first, second = (
        list(node_commands(graph, take_snapshot(graph).missing, graph.config.target, rank)) for rank in (0, 1)
    )
    assert [line.split(" -m ")[-1].split()[0] for line in first] == ["pretrain.data.write_beton"] + [
        "pretrain",
        "eval",
    ] * 4 + ["eval"]
    assert len(second) == 4
    trained = [line for line in first if "torch.distributed.run" in line]
    assert [line.replace("is_host=0", "is_host=1") for line in second] == trained, "in the same order"


def test_the_study_prints_the_commands_and_starts_nothing(
    workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    from launch.__main__ import main

    assert main(["study", str(workplace.write(target=TARGET))]) == 0
    printed = capsys.readouterr().out
    assert "# node 0 of 2 (it also writes data, evaluates and reports)" in printed
    assert "# node 1 of 2" in printed
    assert not workplace.directory.exists()


def test_another_node_takes_part_in_what_is_missing(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import launch.local.torchrun
    from launch.__main__ import main

    joined = workplace.path / "joined"

    def join(directory: Path, target: TorchrunTarget, *, node_rank: int) -> tuple[str, ...]:
        return ("sh", "-c", f"echo {node_rank} {directory.name.split('-')[0]} >> {joined}")

    monkeypatch.setattr(launch.local.torchrun, "training_command", join)
    path = workplace.write(target=TARGET)
    done = workplace.directory / build_graph(load_study(path), "").points[0].entry.directory
    done.mkdir(parents=True)
    (done / "result.json").write_text(f'{{"fingerprint": "{done.name[-12:]}", "total_steps": 4}}')
    assert main(["study", str(path), "target.node_rank=1"]) == 0
    assert joined.read_text().splitlines() == ["1 random", "1 global_batch_size_256", "1 negatives_8"]
    assert not (workplace.directory / "study.json").exists(), "the first node writes the study's files"
    assert "takes part" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"node_rank": 2}, "expected 0 to 1"),
        ({"min_nodes": 3}, "expected at most 2"),
        ({"rendezvous": "static", "min_nodes": 1}, "rendezvous: c10d"),
    ],
)
def test_refusals(workplace: Workplace, change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_study(workplace.write(target={**TARGET, **change}))


def test_two_nodes_meet(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = TorchrunTarget(
        **{**TARGET, "ranks_per_node": 2, "master_address": "127.0.0.1", "master_port": port, "join_timeout_s": 120}
    )
    # Stands in for the package. The ranks of a node share a pipe: one write each, so that no line is torn.
    (tmp_path / "pretrain.py").write_text(
        "import os\n"
        "line = ' '.join(os.environ[key] for key in ('RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE'))\n"
        "os.write(1, f'{line}\\n'.encode())\n"
    )
    nodes = [
        subprocess.Popen(
            training_command(tmp_path, target, node_rank=rank),
            cwd=tmp_path,
            env={
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                "PYTHONPATH": str(tmp_path),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (1, 0)
    ]
    try:
        printed = [node.communicate(timeout=150) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], printed
    ranks = sorted(line for out, _ in printed for line in out.splitlines())
    assert ranks == [f"{rank} 4 2" for rank in range(4)]
