"""A new optimizer touches one file where torch has it, two where its steps are ours."""

import json
from pathlib import Path

from tests.additions.tree import Addition

CONFIG = "pretrain/optim/config.py"
SETTINGS = '''class {name}Config(OptimizerSettings):
    """{name}."""

    label: ClassVar[str] = "{name}"
    implementation: ClassVar[str] = "{path}"
    state_tensors: ClassVar[int] = {tensors}

    name: Literal["{key}"] = "{key}"
    {setting}: PositiveFloat = 0.5

    def arguments(self) -> dict[str, Any]:
        return {{"{setting}": self.{setting}}}


'''
CLASS = '''"""Steps by the sign of the gradient."""

import torch


class Sign(torch.optim.Optimizer):
    def __init__(self, params, lr, scale):
        super().__init__(params, {"lr": lr, "scale": scale, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p -= group["lr"] * group["scale"] * p.grad.sign()
'''
USE = """
import json
from eval.report.format import named
from launch.forecast.forecast import memory_of
from launch.forecast.forecast import model_size
from pretrain.certify.__main__ import main
from pretrain.config import PretrainConfig
from pretrain.configio import validate
from pretrain.errors import ConfigError
from pretrain.plan import make_plan
from pathlib import Path

found = {}
for name, setting in (("adagrad", "eps"), ("sign", "scale"), ("lars", "momentum")):
    config = validate(PretrainConfig, {"global_batch_size": 64, "optimizer": {"name": name, setting: 0.25}}, "x")
    size = model_size(config)
    memory = memory_of(config, make_plan(config, images=5000, world_size=1), size, micro_batches=1)
    found[name] = [named(name), memory.states / size.parameters / 4]
try:
    validate(PretrainConfig, {"optimizer": {"name": "sing"}}, "x")
except ConfigError as error:
    found["refused"] = str(error)
Path("sign.yaml").write_text("{global_batch_size: 64, device: cpu, optimizer: {name: sign}}")
main(["--config", "sign.yaml"])
said = json.loads(Path("certificate.json").read_text())["results"]
found["identical"] = [finding["passed"] for finding in said if finding["check"] == "three steps"][0]
print(json.dumps(found))
"""


def test_an_optimizer_touches_at_most_two_files(tmp_path: Path) -> None:
    tree = Addition(tmp_path)
    torchs = SETTINGS.format(name="Adagrad", path="torch.optim:Adagrad", tensors=1, key="adagrad", setting="eps")
    ours = SETTINGS.format(name="Sign", path="pretrain.optim.sign:Sign", tensors=0, key="sign", setting="scale")
    tree.edit(CONFIG, "OPTIMIZERS: tuple", f"{torchs}{ours}OPTIMIZERS: tuple")
    tree.edit(
        CONFIG,
        "(LARSConfig, SGDConfig, AdamWConfig, AdamConfig)",
        "(LARSConfig, SGDConfig, AdamWConfig, AdamConfig, AdagradConfig, SignConfig)",
    )
    assert len(tree.touched) == 1
    tree.write("pretrain/optim/sign.py", CLASS)
    assert len(tree.touched) == 2
    found = json.loads(tree.python("-c", USE).splitlines()[-1])
    assert found["adagrad"] == ["Adagrad", 3]  # weights, gradients, and what it keeps
    assert found["sign"] == ["Sign", 2]
    assert found["lars"] == ["LARS", 3]
    assert "expected one of lars, sgd, adamw, adam, adagrad, sign (did you mean 'sign'?)" in found["refused"]
    assert found["identical"]
