"""torchrun --nproc-per-node N -m pretrain CONFIG [section.key=value ...]"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pretrain.config import PretrainConfig, result_settings
from pretrain.configio import dump_yaml, find_config, flatten, load, read_yaml
from pretrain.data.catalog import content_of, image_count
from pretrain.errors import ConfigError, Problem, TrainingDiverged
from pretrain.format import command
from pretrain.lock import HANDOVER_S, hold_directory
from pretrain.plan import TrainPlan, make_plan
from pretrain.preemption import EXIT_CODE, Preemption, end_with_torchrun, requeue_and_wait
from pretrain.ranks import (
    rank_from_environment,
    ranks_per_node_from_environment,
    restarts_from_environment,
    world_size_from_environment,
)
from pretrain.rundir import RunDirectory, directory_of, environment, read_json, write_json, write_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one pretraining; 0 when it finished, 75 when a signal stopped it and it saved, 2 for a bad configuration."""
    given = _parser().parse_intermixed_args(arguments)
    end_with_torchrun()
    preemption = Preemption().install()
    first = rank_from_environment() == 0
    ranks, per_node = world_size_from_environment(), ranks_per_node_from_environment()
    lock = contextlib.ExitStack()
    try:
        source = find_config("pretrain", given.config)
        refuse_study(source)
        config = load(PretrainConfig, source, given.overrides, tell=print if first else None)
        plan = plan_of(config, ranks, str(source), per_node)
        directory = directory_of(config, source)
        if given.plan and not first:
            return 0
        if given.plan:
            print(f"would run in {directory.path}\n{plan.describe()}")
            return 0
        if directory.finished():
            refuse_other_run(directory, config, plan)
            if first:
                print(f"{directory.path} is finished; its result is in {directory.result}")
            return 0
        if (status := gave_up_before(directory)) is not None:
            return status
        if first:
            lock.enter_context(hold_directory(directory.path, where="run.directory", handover_s=HANDOVER_S))
            prepare(directory, config, plan)
    except ConfigError as error:
        lock.close()
        if first:
            print(error, file=sys.stderr)
        return 2

    from pretrain.checkpoint import CheckpointError
    from pretrain.dist import open_world
    from pretrain.train import train

    try:
        with lock, open_world(config.device) as world:
            finished = train(config, plan, directory, world, preemption)
    except (ConfigError, TrainingDiverged, CheckpointError) as error:  # what only the device or the training can tell
        if first:
            print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    if not finished and first:
        why = preemption.signal_name or f"step {plan.stop_step}"
        print(f"{why}: saved; rerun the same command to continue", file=sys.stderr)
    if preemption.agreed and not finished:
        requeue_and_wait(first=first)
    return 0 if finished else EXIT_CODE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command("pretrain", "pretrain"),
        description="Pretrain an encoder. Start it with torchrun for several ranks; start it again to resume.",
        epilog="examples:\n"
        "  bigbatch pretrain fashion_mnist epochs=5 --ranks 2\n"
        "  bigbatch pretrain cifar10 objective.name=byol --plan\n"
        "  torchrun --nproc-per-node 2 -m pretrain configs/pretrain/fashion_mnist.yaml objective.temperature=0.2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="YAML file, or the name of one in configs/pretrain/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's")
    parser.add_argument("--plan", action="store_true", help="print the derived numbers; start nothing")
    return parser


def refuse_study(source: Path) -> None:
    """Raises ConfigError where ``source`` is a study rather than a run."""
    keys = read_yaml(source).keys()
    if "base" in keys and keys & {"questions", "baselines"}:
        message = f"is a study, expected a pretraining configuration; bigbatch study {source} runs it"
        raise ConfigError(str(source), [Problem("", message)])


def gave_up_before(directory: RunDirectory) -> int | None:
    """Exit status where torchrun starts again a run that stopped on request or diverged; None otherwise.

    torchrun restarts whatever ends with an error; only what died (a killed rank, a lost node) may do better next time.
    """
    if restarts_from_environment() == 0 or not directory.progress.is_file():
        return None
    return {"stopped": EXIT_CODE, "diverged": 1}.get(read_json(directory.progress).get("state"))


def plan_of(config: PretrainConfig, world_size: int, source: str, ranks_per_node: int | None = None) -> TrainPlan:
    """Plan on what is on disk. Raises ConfigError, also where the data set has not been written."""
    data = config.data
    try:
        images = image_count(data.dataset, data.directory, data.split)
        content = content_of(data.directory, data.split)
    except (ValueError, OSError) as error:
        raise ConfigError(source, [Problem("data", str(error))]) from error
    if images is None:
        write = f"bigbatch data write {data.dataset} {data.directory}"
        raise ConfigError(source, [Problem("data.directory", f"{data.directory} has no data set; write it: {write}")])
    return make_plan(
        config, images=images, world_size=world_size, ranks_per_node=ranks_per_node, source=source, data=content
    )


def prepare(directory: RunDirectory, config: PretrainConfig, plan: TrainPlan) -> None:
    """Write what is known before the first step and print the plan; refuse a directory that holds another run."""
    refuse_other_run(directory, config, plan)
    sessions = read_json(directory.environment)["sessions"] if directory.environment.is_file() else []
    write_text(directory.config, dump_yaml(config))
    write_json(directory.plan, plan.to_json())
    write_json(directory.environment, {"sessions": [*sessions, environment()]})
    print(f"run in {directory.path}\n{plan.describe()}", flush=True)


def refuse_other_run(directory: RunDirectory, config: PretrainConfig, plan: TrainPlan) -> None:
    """Raises ConfigError where the directory holds another run, finished or not, or one this plan cannot go on with."""
    if not directory.plan.is_file():
        return
    other = read_json(directory.plan)
    problems = []
    if other.get("fingerprint") != plan.fingerprint:
        message = f"holds another run ({other.get('fingerprint')}; this one is {plan.fingerprint}); choose another"
        problems.append(Problem("run.directory", message + _differences(directory, config)))
    elif (
        not directory.finished()
        and (saw := other.get("batch_norm_images", plan.batch_norm_images)) != plan.batch_norm_images
    ):
        message = (
            f"batch norm saw {saw} images at a time so far, and would see {plan.batch_norm_images} on "
            f"{plan.world_size} ranks; start on {other.get('world_size')} ranks, or choose another run.directory"
        )
        problems.append(Problem("sync_batch_norm", message))
    if None not in (other.get("data"), plan.data) and other["data"] != plan.data:
        message = (
            f"holds other images or labels ({plan.data}) than the run in this directory saw ({other['data']}); "
            "expected those, or choose another run.directory"
        )
        problems.append(Problem("data.directory", message))
    if problems:
        raise ConfigError(str(directory.path), problems)


def _differences(directory: RunDirectory, config: PretrainConfig) -> str:
    """The settings in which the run that lies there differs, where its configuration can still be read."""
    try:
        there = flatten(result_settings(load(PretrainConfig, directory.config)))
    except (ConfigError, OSError):
        return ""
    here = flatten(result_settings(config))
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    return "".join(f"; {key}: {there.get(key)} there, {here.get(key)} here" for key in keys)


if __name__ == "__main__":
    sys.exit(main())
