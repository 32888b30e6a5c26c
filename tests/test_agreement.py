"""What one rank asks for becomes a decision of all, after the same step, within seconds whatever a step takes."""

import time

import pytest
import torch
import torch.distributed as dist

from pretrain.dist import Agreement, Groups, World, _check_address
from tests.ranks import Ranks

EVERY_S = 0.4


def first_answer(group: dist.ProcessGroup, step_s: float, ask_at: int) -> tuple[int, float, int]:
    """(step at which it is answered, seconds since it was asked, agreements); the last rank asks after ``ask_at``."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    agreement = Agreement(World(rank, size, torch.device("cpu"), Groups(control=group)), every_s=EVERY_S)
    asked_at, messages, reduce = 0.0, 0, dist.all_reduce

    def counted(*args: object, **options: object) -> object:
        nonlocal messages
        messages += 1
        return reduce(*args, **options)  # type: ignore[arg-type]

    dist.all_reduce = counted  # type: ignore[assignment]
    try:
        for step in range(1, 1000):
            time.sleep(step_s * (1 + rank / size))
            asked_at = time.monotonic() if step == ask_at else asked_at
            stop, late = agreement.reached(rank == size - 1 and step >= ask_at, False)
            assert not late
            if stop:
                return step, time.monotonic() - asked_at, messages
    finally:
        dist.all_reduce = reduce
    raise AssertionError("nobody answered")


def test_slow_steps_answer_at_the_very_next_one(ranks: Ranks) -> None:
    found = ranks(2).run(first_answer, 1.5 * EVERY_S, 3)
    assert [step for step, _, _ in found] == [3, 3]


def test_quick_steps_ask_seldom_and_answer_in_time(ranks: Ranks) -> None:
    found = ranks(3).run(first_answer, 0.01, 100)
    steps, seconds, messages = zip(*found)
    assert len(set(steps)) == 1, "every rank after the same step"
    assert max(seconds) < 4 * EVERY_S
    assert messages[0] < steps[0] / 3, "ranks do not wait for one another at every step"


def test_a_host_whose_name_is_its_loopback_address_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pretrain.dist.socket.gethostbyname", lambda name: "127.0.1.1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    _check_address()
    said = capsys.readouterr().err
    assert "GLOO_SOCKET_IFNAME is not set" in said
    assert "stands for 127.0.1.1" in said
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    _check_address()
    assert not capsys.readouterr().err


def test_a_single_rank_answers_itself() -> None:
    assert Agreement(World(0, 1, torch.device("cpu"))).reached(False, True) == (False, True)
