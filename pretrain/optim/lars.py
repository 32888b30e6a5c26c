"""LARS for large batches (You et al. 2017) as in google-research/simclr: classic momentum, learning rate in the buffer.

    u = g + weight_decay · w
    q = trust_coefficient · |w| / |u|        1 if either norm is 0, and for groups with adapt=False
    v <- momentum · v + lr · q · u
    w <- w - v

With the learning rate inside v, a change of it acts on new gradients only; the popular variant that multiplies v by it
afterwards takes other steps during warm-up and decay.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Numbers taken together on a CPU, where the temporary update should stay in the cache; elsewhere all at once.
CPU_NUMBERS_AT_ONCE = 2**18


class LARS(Optimizer):
    """Multi-tensor: a few calls for all parameters, no wait for the device.

    params: parameters or groups; a group may set lr, momentum, weight_decay, trust_coefficient, and adapt=False (no
    trust ratio: SGD with momentum, as biases and norm parameters want it). Raises ValueError for values out of range.

    >>> import torch
    >>> from pretrain.optim import LARS
    >>> layer = torch.nn.Linear(2, 2)
    >>> plain = {"params": [layer.bias], "adapt": False}
    >>> optimizer = LARS([{"params": [layer.weight], "weight_decay": 1e-6}, plain], lr=4.8)
    >>> layer(torch.ones(1, 2)).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapt": True,
        }
        super().__init__(params, defaults)
        problems = [problem for index, group in enumerate(self.param_groups) for problem in _problems(index, group)]
        if problems:
            raise ValueError("LARS: " + "; ".join(problems))

    # torch wraps these so that its compiler leaves them alone, and imports the compiler for that: a second or more in
    # every process, which a run that compiles nothing has no use for.
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient; gradients stay as they are. Returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weights in _portions([p for p in group["params"] if p.grad is not None]):
                gradients = [p.grad for p in weights if p.grad is not None]
                _update(weights, gradients, [self._buffer(p) for p in weights], group)
        return loss

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _problems(index: int, group: dict[str, Any]) -> Iterator[str]:
    ranges = {"lr": math.inf, "momentum": 1.0, "weight_decay": math.inf, "trust_coefficient": math.inf}
    for name, end in ranges.items():
        if not 0.0 <= group[name] < end:
            wanted = "at least 0" if end == math.inf else f"at least 0 and less than {end:g}"
            yield f"group {index} has {name}={group[name]}; expected {wanted}"


def _portions(weights: list[Tensor]) -> Iterator[list[Tensor]]:
    portion: list[Tensor] = []
    numbers = 0
    for weight in weights:
        if portion and weight.device.type == "cpu" and numbers + weight.numel() > CPU_NUMBERS_AT_ONCE:
            yield portion
            portion, numbers = [], 0
        portion.append(weight)
        numbers += weight.numel()
    if portion:
        yield portion


def _update(weights: list[Tensor], gradients: list[Tensor], buffers: list[Tensor], group: dict[str, Any]) -> None:
    updates = gradients
    if group["weight_decay"]:
        updates = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
    torch._foreach_mul_(buffers, group["momentum"])
    if group["adapt"]:
        weight_norms = torch.stack(list(torch._foreach_norm(weights)))
        update_norms = torch.stack(list(torch._foreach_norm(updates)))
        adapts = (weight_norms > 0) & (update_norms > 0)
        ratios = torch.where(adapts, group["trust_coefficient"] * weight_norms / update_norms, 1.0)
        torch._foreach_addcmul_(buffers, updates, list((group["lr"] * ratios).unbind()))
    else:
        torch._foreach_add_(buffers, updates, alpha=group["lr"])
    torch._foreach_sub_(weights, buffers)
