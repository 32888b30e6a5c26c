"""A new objective touches two files: its settings among the others, and the class that trains."""

import json
from pathlib import Path

from tests.additions.tree import Addition

CONFIG = "pretrain/objectives/config.py"
SETTINGS = '''class AgreementConfig(ObjectiveSettings):
    """The plain squared distance of two views."""

    label: ClassVar[str] = "Agreement"
    implementation: ClassVar[str] = "pretrain.objectives.agreement:Agreement"
    told_apart_by: ClassVar[tuple[str, ...]] = ("weight",)

    name: Literal["agreement"] = "agreement"
    weight: PositiveFloat = 1.0
    projector: ProjectorConfig = ProjectorConfig()

    def loss_bytes(self, batch: LossBatch) -> int:
        return FLOAT_BYTES * 2 * batch.own_rows * self.projector.output_width

    def messages(self, batch: LossBatch) -> tuple[Message, ...]:
        return (Message("all_reduce", 1),)


'''
CLASS = '''"""Two views agree."""

from pretrain.losses.common import full_precision
from pretrain.objectives.base import ObjectiveOutput, ProjectedObjective


class Agreement(ProjectedObjective):
    """Squared distance of the two views' embeddings."""

    def __init__(self, config, encoder):
        super().__init__(config.projector, encoder)
        self.weight = config.weight

    def loss(self, embeddings, labels, context):
        z_a, z_b = full_precision(embeddings).chunk(2)
        loss = self.weight * (z_a - z_b).square().mean()
        return ObjectiveOutput(loss, {"loss": loss.detach()})
'''
USE = """
import json
from eval.report.format import METHODS, named
from launch.forecast.communication import Links, communication
from launch.forecast.forecast import model_size
from launch.plan.targets import Hardware
from pretrain.certify.__main__ import main
from pretrain.config import PretrainConfig
from pretrain.configio import load
from pretrain.errors import ConfigError
from pretrain.plan import make_plan
from pathlib import Path

config = load(PretrainConfig, Path("agreement.yaml"))
plan = make_plan(config, images=5000, world_size=2)
times = communication(config, model_size(config), Links(Hardware(), 2, 2), global_batch_size=64, micro_batches=1)
try:
    load(PretrainConfig, Path("agreement.yaml"), ["objective.wieght=2"])
except ConfigError as error:
    refused = str(error)
passed = main(["--config", "agreement.yaml"]) == 0
said = json.loads(Path("certificate.json").read_text())["results"]
print(json.dumps({
    "loss_bytes": plan.loss_bytes_per_rank,
    "sums": times.sums,
    "parameters": model_size(config).parameters,
    "label": named("agreement"),
    "refused": refused,
    "passed": passed,
    "judged": [finding["subject"] for finding in said if finding["check"] == "gradient"],
}))
"""
RUN = """
global_batch_size: 64
device: cpu
encoder: {architecture: resnet18, width: 0.125, stem: small}
objective: {name: agreement, weight: 2.0, projector: {output_width: 32}}
"""


def test_an_objective_touches_two_files(tmp_path: Path) -> None:
    tree = Addition(tmp_path)
    tree.edit(CONFIG, "OBJECTIVES: tuple", f"{SETTINGS}OBJECTIVES: tuple")
    tree.edit(CONFIG, "    SupervisedConfig,\n)", "    SupervisedConfig,\n    AgreementConfig,\n)")
    tree.write("pretrain/objectives/agreement.py", CLASS)
    assert len(tree.touched) == 2
    (tree.tree / "agreement.yaml").write_text(RUN)
    found = json.loads(tree.python("-c", USE).splitlines()[-1])
    assert found["loss_bytes"] == 4 * 2 * 64 * 32
    assert found["sums"] > 0
    assert found["parameters"] > 0
    assert found["label"] == "Agreement"
    assert "did you mean 'weight'" in found["refused"]
    assert found["passed"]
    assert "agreement, weight 2" in found["judged"]
    assert "agreement, weight 1" in found["judged"], "every certificate judges it from now on"
