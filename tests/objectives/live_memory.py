"""What tensors take at the worst moment, counted and not measured: the same on every machine."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Bytes of all storages made inside that are alive at once: ``peak`` is the most of them so far.

    What a library takes for itself inside an operation is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self._now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {self._key(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        out = function(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and self._key(x) not in given and self._key(x) not in self._sizes:
                storage = x.untyped_storage()
                self._sizes[self._key(x)] = storage.nbytes()
                self._now += storage.nbytes()
                weakref.finalize(storage, self._freed, self._key(x))
                self.peak = max(self.peak, self._now)
        return out

    @staticmethod
    def _key(x: torch.Tensor) -> int:
        return x.untyped_storage()._cdata

    def _freed(self, key: int) -> None:
        self._now -= self._sizes.pop(key)
