"""mrkit: unsupervised physics models for MRI.

the command line. They are imported when first used, so that `import mrkit` and the command line's help stay fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrkit.quantification.quantify import Quantified as Quantified
    from mrkit.quantification.quantify import quantify as quantify
    from mrkit.simulation.simulate import SimulatedScan as SimulatedScan
    from mrkit.simulation.simulate import simulate_ulf as simulate_ulf
    from mrkit.superresolution.superresolve import SuperResolved as SuperResolved
    from mrkit.superresolution.superresolve import superresolve as superresolve

_PLACES = {
    "Quantified": "mrkit.quantification.quantify",
    "SimulatedScan": "mrkit.simulation.simulate",
    "SuperResolved": "mrkit.superresolution.superresolve",
    "quantify": "mrkit.quantification.quantify",
    "simulate_ulf": "mrkit.simulation.simulate",
    "superresolve": "mrkit.superresolution.superresolve",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mrkit' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
