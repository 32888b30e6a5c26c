"""What an objective is to everything around it: its settings, and the facts that follow from them. Torch-free.

One's own objective is two classes in a module of one's own, named in a configuration as
``objective: {name: "my_package.my_module:MyObjective", ...}``:

    class MySettings(ObjectiveSettings):      # pydantic: a field for each setting, checked strictly
        label: ClassVar[str] = "My objective"
        sharpness: float = 2.0
        projector: ProjectorConfig = ProjectorConfig()

    class MyObjective(ProjectedObjective):    # see pretrain.objectives.base
        Config = MySettings
        def __init__(self, config, encoder): ...

Facts that a class does not state count as nothing: no communication, no memory of the loss, no rule. The name may also
be the path of the settings, with ``implementation`` that of the objective: then planning imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pretrain.configio import Section
from pretrain.errors import Problem
from pretrain.models.config import ProjectorConfig as ProjectorConfig

FLOAT_BYTES = 4  # losses compute in float32

# Widths of the heads in the certificate, where every objective is judged in small.
SMALL_HIDDEN_WIDTH, SMALL_OUTPUT_WIDTH = 24, 6


@dataclass(frozen=True)
class LossBatch:
    """What the loss of one step works on. device: cpu, or the kind of accelerator."""

    global_batch_size: int
    world_size: int
    feature_width: int
    device: str = "cuda"

    @property
    def rows(self) -> int:
        """Embeddings of all ranks: two views of each image."""
        return 2 * self.global_batch_size

    @property
    def own_rows(self) -> int:
        """Embeddings of one rank."""
        return self.rows // self.world_size


@dataclass(frozen=True)
class Message:
    """One collective of a loss. numbers: float32 ones that every rank holds after it."""

    kind: Literal["all_gather", "all_reduce"]
    numbers: int


class ObjectiveSettings(Section):
    """Base of the settings of every objective.

    label: its name in print. implementation: dotted path of the class that trains; by default the name is that path.
    number_of_views: that it takes of each image; None: any. has_target: a copy of encoder and projector follows by
    moving average. told_apart_by: the settings that the certificate names. Every field that is a ProjectorConfig is a
    head, each on top of the one before.
    """

    label: ClassVar[str] = ""
    implementation: ClassVar[str] = ""
    number_of_views: ClassVar[int | None] = 2
    has_target: ClassVar[bool] = False
    told_apart_by: ClassVar[tuple[str, ...]] = ()

    name: str

    @property
    def heads(self) -> tuple[ProjectorConfig, ...]:
        """From the features to what the loss takes."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return tuple(value for value in values if isinstance(value, ProjectorConfig))

    def embedding_width(self, feature_width: int) -> int:
        """D of the embeddings that the loss takes."""
        return self.heads[-1].output_width if self.heads else feature_width

    def problems(self, *, global_batch_size: int, number_of_views: int) -> list[Problem]:
        """What cannot be trained with these settings, and what could."""
        if self.number_of_views is None or number_of_views == self.number_of_views:
            return []
        message = f"got {number_of_views}, expected {self.number_of_views} for {self.name}"
        return [Problem("augmentation.number_of_views", message)]

    def canonical(self, global_batch_size: int) -> Self:
        """Settings that are equal exactly where the result is meant to be: what the fingerprint covers."""
        return self

    def negatives_per_anchor(self, global_batch_size: int) -> int:
        """Embeddings that an anchor is told apart from; 0 where an objective has no negatives."""
        return 0

    def notes(self) -> tuple[str, ...]:
        """What happens over a training that no other setting tells: lines of the plan."""
        return ()

    def chance_loss(self, global_batch_size: int) -> float | None:
        """The loss where every image looks like every other; None where that is not a level of its own."""
        return None

    def loss_bytes(self, batch: LossBatch) -> int:
        """Most bytes that the loss and its gradient take on one rank at a time, beside the embeddings."""
        return 0

    def messages(self, batch: LossBatch) -> tuple[Message, ...]:
        """The collectives of one loss and its gradient on several ranks, in order."""
        return ()

    def similarities(self, batch: LossBatch) -> int:
        """Pairs of embeddings that one rank compares: what of a step grows with the square of the batch."""
        return 0

    def small(self, images: int) -> Self:
        """The same with narrow heads, for a global batch of ``images``: its mathematics in seconds."""
        narrow = {"hidden_width": SMALL_HIDDEN_WIDTH, "output_width": SMALL_OUTPUT_WIDTH}
        heads = {name: getattr(self, name) for name in type(self).model_fields}
        changed = {n: h.model_copy(update=narrow) for n, h in heads.items() if isinstance(h, ProjectorConfig)}
        return self.model_copy(update=changed)

    @classmethod
    def variants(cls, images: int) -> tuple[Self, ...]:
        """All that the certificate judges for ``images``: one for each way in which ranks talk to one another."""
        return (cls(),)  # type: ignore[call-arg]

    @property
    def title(self) -> str:
        """The name with what sets a variant apart."""
        values = {name: getattr(self, name) for name in self.told_apart_by}
        return ", ".join([self.name, *(f"{name} {value:g}" for name, value in values.items() if value)])


def divisor_problems(where: str, size: int | None, batch: int) -> list[Problem]:
    """What is wrong with parts of ``size`` of a global batch of ``batch``, with the nearest sizes that divide it."""
    if size is None or batch % size == 0:
        return []
    divisors = [d for d in range(2, batch + 1) if batch % d == 0]
    near = " or ".join(map(str, sorted(sorted(divisors, key=lambda d: abs(d - size))[:2])))
    return [Problem(where, f"got {size}, which does not divide the global batch of {batch}; nearest: {near}")]
