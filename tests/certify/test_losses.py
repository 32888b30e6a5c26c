"""`certify --loss`: the losses of this project are exact, and each mistake of others is seen for what it is."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pretrain.certify.losses import LossToJudge, Verdict, judge
from tests.training import run

OURS = {
    "pretrain.losses:ntxent_loss": {"temperature": 0.5},
    "pretrain.losses:dcl_loss": {"temperature": 0.5},
    "pretrain.losses:barlow_twins_loss": {},
    "pretrain.losses:vicreg_loss": {},
    "pretrain.losses:wmse_loss": {},
}
PEERS: dict[str, dict[str, Any]] = {
    "LocalNTXent": {"temperature": 0.1},
    "ntxent_of_all_anchors": {},
    "ntxent_of_own_anchors": {},
    "local_vicreg": {},
    "BarlowTwinsInPlace": {"local_statistics": True},
}


def test_ours_are_exact_and_every_mistake_is_named() -> None:
    judged = [LossToJudge(path, arguments) for path, arguments in OURS.items()]
    judged += [LossToJudge(f"tests.certify.peers:{name}", arguments) for name, arguments in PEERS.items()]
    verdicts = judge(judged)
    found = {(verdict.loss.rpartition(":")[2], verdict.ranks): verdict for verdict in verdicts}
    assert len(found) == 2 * len(judged)
    assert all(verdict.exact for verdict in verdicts if verdict.loss in OURS)
    two = found["LocalNTXent", 2]
    assert two.ratio == pytest.approx(0.85, abs=0.05)
    assert two.cosine == pytest.approx(0.87, abs=0.06)
    for ranks in (2, 4):
        # A sum in place brings 1/W of a gradient, and local statistics another direction on top.
        assert found["BarlowTwinsInPlace", ranks].ratio < 1.6 / ranks
        assert "another direction" in found["BarlowTwinsInPlace", ranks].reading
        local = found["LocalNTXent", ranks]
        assert "another direction" in local.reading
        assert "another loss value" in local.reading
        assert "another direction" in found["local_vicreg", ranks].reading
        of_all = found["ntxent_of_all_anchors", ranks]
        assert of_all.reading == "1/W of the gradient; the same loss value"
        assert of_all.ratio == pytest.approx(1 / ranks)
        of_own = found["ntxent_of_own_anchors", ranks]
        assert of_own.same_value
        assert "another direction" in of_own.reading


def test_the_command_says_yes_and_no(tmp_path: Path) -> None:
    output = tmp_path / "loss.json"
    command = [sys.executable, "-m", "pretrain.certify", "--output", str(output), "--loss"]
    done = run([*command, "tests.certify.peers:LocalNTXent", "temperature=0.2"])
    assert done.returncode == 1, done.stderr
    assert "another direction" in done.stdout
    said = json.loads(output.read_text())
    assert said["arguments"] == {"temperature": 0.2}
    assert [one["ranks"] for one in said["on"]] == [2, 4]
    assert not said["passed"]


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("tests.certify.peers", [], "expected package.module:Name"),
        ("tests.certify.pears:LocalNTXent", [], "no module 'tests.certify.pears'"),
        ("tests.certify.peers:LocalNTXnet", [], "did you mean 'LocalNTXent'"),
        ("tests.certify.peers:LocalNTXent", ["temprature=1"], "temprature"),
    ],
)
def test_what_cannot_be_judged(path: str, arguments: list[str], message: str, capsys: Any) -> None:
    from pretrain.certify.__main__ import main

    assert main(["--loss", path, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_readings() -> None:
    def reading(ratio: float, cosine: float, value: float = 1.0) -> str:
        return Verdict("loss", 4, ratio, cosine, value, 1.0).reading

    assert reading(1.0, 1.0) == "exact"
    assert reading(0.25, 1.0) == "1/W of the gradient; the same loss value"
    assert reading(4.0, 1.0).startswith("a multiple of the gradient")
    assert reading(1.0, 1.0, 2.0) == "the right gradient; another loss value"
    assert reading(0.9, 0.8, 2.0).startswith("another direction")
