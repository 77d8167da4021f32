"""A second device for machines that have none: tensors that say they are on `meta`, hold numbers all the same, and
refuse to meet those of the CPU, as tensors on a GPU do."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

ELSEWHERE = torch.device("meta")


class _There(Tensor):
    """A tensor whose numbers, in `here`, are kept on the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "_There":
        return torch.Tensor._make_wrapper_subclass(
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=ELSEWHERE
        )

    def __init__(self, here: Tensor) -> None:
        self.here = here

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Within, `.to("meta")` and `device="meta"` give tensors with numbers, and nothing may mix them with others."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = list(_tensors((*args, *kwargs.values())))
    there = [x for x in given if isinstance(x, _There)]
    if any(x.device == ELSEWHERE and not isinstance(x, _There) for x in given):
        raise RuntimeError(f"{func} got a tensor that was copied to a device number by number")
    # As torch does for GPUs: a number from the CPU is welcome anywhere, and copies may cross.
    if there and any(not isinstance(x, _There) and x.ndim for x in given) and func is not torch.ops.aten.copy_.default:
        raise RuntimeError(f"{func} mixes tensors of two devices")
    wanted = kwargs.get("device")
    if not there and wanted != ELSEWHERE:
        return func(*args, **kwargs)
    if wanted is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    unwrapped = tree_map(lambda x: x.here if isinstance(x, _There) else x, (args, kwargs))
    out = func(*unwrapped[0], **unwrapped[1])
    if wanted is not None and wanted != ELSEWHERE:
        return out
    if func is torch.ops.aten.copy_.default and not isinstance(args[0], _There):
        return args[0]
    # What was changed in place stays the same tensor.
    same = {id(x.here): x for x in there}
    return tree_map(lambda x: _named(x, same), out)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _named(x: Any, same: dict[int, _There]) -> Any:
    if not isinstance(x, Tensor):
        return x
    return same[id(x)] if id(x) in same else _There(x)
