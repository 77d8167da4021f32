"""The device on which fits run."""

from __future__ import annotations

import torch

from mrcore.errors import BadInputError


def device_of(name: str | torch.device) -> torch.device:
    """Return the torch device of that name, such as `cpu`, `cuda` or `cuda:1`.

    Raises:
        BadInputError: a name that torch does not know, or a device that this machine does not have.
    """
    try:
        device = torch.device(name)
        float(torch.ones((), device=device))
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts that it has it
        raise BadInputError(
            f"the device '{name}' cannot be used here: {str(error).splitlines()[0]}; this machine has {_present()}"
        ) from error
    return device


def _present() -> str:
    """Return the devices that this machine has, for an error."""
    names = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return ", ".join([*names, "mps"] if torch.backends.mps.is_available() else names)


def use_threads(n_threads: int | None) -> None:
    """Limit torch to `n_threads` CPU threads; None leaves its own choice."""
    if n_threads is not None:
        torch.set_num_threads(n_threads)
