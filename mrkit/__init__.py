"""mrkit: unsupervised physics models for MRI.

The verbs `simulate_ulf`, `superresolve`, `superresolve_several` and `quantify` and their results; `mrkit --help` for
the command line. They are imported when first used, so that `import mrkit` and the command line's help stay fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrkit.api import (
        Quantified,
        SimulatedScan,
        SuperResolved,
        SuperResolvedSeveral,
        quantify,
        simulate_ulf,
        superresolve,
        superresolve_several,
    )

__all__ = [
    "Quantified",
    "SimulatedScan",
    "SuperResolved",
    "SuperResolvedSeveral",
    "quantify",
    "simulate_ulf",
    "superresolve",
    "superresolve_several",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mrkit' has no attribute '{name}'")
    return getattr(import_module("mrkit.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
