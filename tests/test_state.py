"""What a run is made of: a group for each kind of traffic, one count of steps, checkpoints of earlier versions."""

from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from pretrain.batch import Batch, StepContext
from pretrain.config import AugmentationConfig, DataConfig, EncoderConfig, PretrainConfig, ScheduleConfig
from pretrain.dist import Groups, World, mean_over_ranks
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.objectives.config import BYOLConfig, ObjectiveConfig, ProjectorConfig, SimCLRConfig, WMSEConfig
from pretrain.plan import make_plan
from pretrain.state import TrainState, build_state
from tests.ranks import Ranks

CPU, CLASSES = torch.device("cpu"), 4
HEAD = ProjectorConfig(hidden_width=8, output_width=4, last_batch_norm=False, dropout=0.3)


def config_of(objective: ObjectiveConfig) -> PretrainConfig:
    return PretrainConfig(
        global_batch_size=16,
        epochs=1,
        data=DataConfig(images=64),
        augmentation=AugmentationConfig(crop_size_px=16),
        encoder=EncoderConfig(architecture="resnet18", width=0.0625, stem="strided"),
        objective=objective,
        schedule=ScheduleConfig(warmup_epochs=0.0),
    )


def state_of(objective: ObjectiveConfig, world: World) -> TrainState:
    config = config_of(objective)
    plan = make_plan(config, images=64, world_size=world.size)
    with mock.patch("pretrain.state.read_manifest", return_value=SimpleNamespace(classes=CLASSES)):
        return build_state(config, plan, world)


def batch_of(world: World, step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    views = torch.randint(0, 256, (16, 2, 3, 16, 16), dtype=torch.uint8, generator=generator)
    own = torch.arange(16).chunk(world.size)[world.rank]
    return Batch(views[own], own % CLASSES, own)


def one_step(state: TrainState, gradients: GradientAverager, world: World) -> dict[str, float]:
    context = StepContext(state.step, progress=(state.step + 1) / 4, measure=True)
    batch = batch_of(world, state.step)
    output = forward_backward(state.objective, gradients, batch, context)
    state.probe.learn(output.features_bF, batch.labels, context)
    for parameter in state.objective.parameters():
        if parameter.grad is not None:
            parameter.data.sub_(parameter.grad, alpha=0.05)
            parameter.grad = None
    state.step += 1
    state.objective.after_optimizer_step(context)
    return mean_over_ranks(world, output.metrics | state.probe.metrics(context))


def groups_used(group: dist.ProcessGroup) -> dict[str, set[str]]:
    """Which collectives of a step go through which group."""
    ranks = list(range(dist.get_world_size(group)))
    made = {name: dist.new_group(ranks, use_local_synchronization=True) for name in vars(Groups())}
    names = {id(made_group): name for name, made_group in made.items()}
    world = World(dist.get_rank(group), dist.get_world_size(group), CPU, Groups(**made))
    used: dict[str, set[str]] = {}

    def watched(name: str) -> Any:
        original = getattr(dist, name)

        def call(*args: Any, group: Any = None, **options: Any) -> Any:
            used.setdefault(names.get(id(group), "the default group"), set()).add(name)
            return original(*args, group=group, **options)

        return mock.patch.object(dist, name, call)

    with watched("all_reduce"), watched("all_gather_into_tensor"), watched("broadcast"):
        for objective in (SimCLRConfig(projector=HEAD), BYOLConfig(projector=HEAD, predictor=HEAD)):
            state = state_of(objective, world)
            gradients = GradientAverager(list(state.objective.parameters()), world.groups.gradients)
            one_step(state.objective.train() and state, gradients, world)
    return used


def test_each_kind_of_traffic_has_its_group_and_nothing_takes_the_default_one(ranks: Ranks) -> None:
    for used in ranks(2).run(groups_used):
        assert used == {
            "loss": {"all_gather_into_tensor", "all_reduce"},
            "norm": {"all_gather_into_tensor"},
            "gradients": {"all_reduce", "broadcast"},
            "control": {"all_reduce"},
        }


def test_a_checkpoint_that_numbered_its_draws_goes_on_with_the_step() -> None:
    world = World(0, 1, CPU)
    for objective in (SimCLRConfig(projector=HEAD), WMSEConfig(projector=HEAD, sub_batch_size=8)):
        straight, broken = state_of(objective, world), state_of(objective, world)
        for state, steps in ((straight, 4), (broken, 2)):
            state.objective.train()
            for _ in range(steps):
                one_step(state, GradientAverager([]), world)
        content = broken.content()
        content["model"] = {**content["model"], "draw": torch.tensor(2), "projector.0.draw": torch.tensor(2)}
        resumed = state_of(objective, world)
        resumed.take(content)
        resumed.objective.train()
        for _ in range(2):
            one_step(resumed, GradientAverager([]), world)
        for name, value in straight.objective.state_dict().items():
            assert torch.equal(resumed.objective.state_dict()[name], value), name


def test_a_probe_that_was_switched_on_later_begins_there() -> None:
    world = World(0, 1, CPU)
    state = state_of(SimCLRConfig(projector=HEAD), world)
    content = {**state.content(), "step": 7}
    del content["online_probe"]
    state.take(content)
    assert state.probe.first_step == 7
