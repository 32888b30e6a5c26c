"""Settings that name their objective, so that a login node plans it without torch."""

from typing import ClassVar

from pretrain.objectives.settings import ObjectiveSettings, ProjectorConfig


class Sharp(ObjectiveSettings):
    implementation: ClassVar[str] = "tests.objectives.own_code:Sharp"

    sharpness: float = 5.0
    projector: ProjectorConfig = ProjectorConfig(output_width=16)
