"""tiny-cuda-nn as an accelerator of the hash grid: imported only when asked for, and tried in a child process first.

It is built from source on the machine that uses it, and has been seen to end the process at its first forward pass;
so one pass forward and back is run in a child before it is used here. In a machine without it, or where the trial
fails, the torch encoding does the same, more slowly.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn

from inr.fields.hash_encoding import HashEncoding, HashShape
from mrcore.errors import MissingExtraError

_PAGE = "https://github.com/NVlabs/tiny-cuda-nn"
_NOT_INSTALLED, _NOT_LOADED = 3, 4
_TRIAL = f"""
import sys
try:
    import tinycudann
except ImportError as error:
    print(error)
    sys.exit({_NOT_INSTALLED})
except OSError as error:
    print(error)
    sys.exit({_NOT_LOADED})
import torch
from inr.fields.hash_encoding import HashShape
from inr.fields.tcnn import configuration
encoding = tinycudann.Encoding(3, configuration(HashShape(2, 2, 8, 4, 1.5)), dtype=torch.float32)
out = encoding(torch.rand(256, 3, device=encoding.params.device))
out.sum().backward()
if not bool(torch.isfinite(encoding.params.grad).all()):
    print("its gradient is not finite")
    sys.exit(1)
"""


def configuration(shape: HashShape) -> dict[str, Any]:
    """Return tiny-cuda-nn's settings of the same encoding."""
    return {
        "otype": "Grid",
        "type": "Hash",
        "n_levels": shape.n_levels,
        "n_features_per_level": shape.n_features,
        "log2_hashmap_size": shape.log2_entries,
        "base_resolution": shape.base_resolution,
        "per_level_scale": shape.growth,
        "interpolation": "Linear",
    }


@cache
def why_not(timeout_s: float = 120.0) -> str | None:
    """Return why tiny-cuda-nn cannot be used here, or None if a child process has just used it; tried once."""
    try:
        trial = subprocess.run(
            [sys.executable, "-c", _TRIAL], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"its first pass did not end within {timeout_s:g} s"
    problem = (trial.stdout.strip() or trial.stderr.strip() or "nothing was said").splitlines()[-1]
    if trial.returncode == 0:
        return None
    if trial.returncode == _NOT_INSTALLED:
        return f"it is not installed ({problem}); it is built from source, see {_PAGE}"
    if trial.returncode == _NOT_LOADED:
        return f"its library cannot be loaded ({problem}); it needs an NVIDIA GPU with a driver, see {_PAGE}"
    if trial.returncode < 0:
        return f"it ended a trial process by signal {-trial.returncode}; rebuild it for this GPU and torch, see {_PAGE}"
    return f"a trial of it failed ({problem})"


class TcnnEncoding(nn.Module):
    """The encoding of `twin`, evaluated by tiny-cuda-nn in float32; `table` means what it means in the twin.

    Positions and features stay on the device of the caller; the table is on the GPU, wherever the field is moved.

    Raises:
        MissingExtraError: tiny-cuda-nn is missing, cannot be loaded, or fails in its trial.
    """

    def __init__(self, twin: HashEncoding) -> None:
        super().__init__()
        reason = why_not()
        if reason is not None:
            raise MissingExtraError(
                f"tiny-cuda-nn cannot be used: {reason}. Take `accelerated=False`: the same field in torch"
            )
        library = importlib.import_module("tinycudann")
        encoding = library.Encoding(3, configuration(twin.shape), dtype=torch.float32)
        if encoding.params.numel() != twin.table.numel():
            raise MissingExtraError(
                f"tiny-cuda-nn has {encoding.params.numel()} entries where {twin.table.numel()} were expected: a "
                "version with another layout. Take `accelerated=False`: the same field in torch"
            )
        with torch.no_grad():
            encoding.params.copy_(twin.table)
        self.shape = twin.shape
        self.table = encoding.params
        # Not registered: its parameters are those of `table`.
        self.__dict__["_encoding"] = encoding

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # The library works on a GPU in float32, nowhere else.
        return self

    def forward(self, unit: Tensor) -> Tensor:
        """Interpolate at positions (n, 3) in 0 to 1: (n_levels * n_features, n)."""
        out: Tensor = self.__dict__["_encoding"](unit.float().to(self.table.device))
        return out.T.to(unit)
