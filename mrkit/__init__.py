"""mrkit: unsupervised physics models for MRI.

The verbs `simulate_ulf`, `superresolve`, `superresolve_several` and `quantify` and their results; `mrkit --help` for
the command line. They are imported when first used, so that `import mrkit` and the command line's help stay fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrkit.quantification.quantify import Quantified as Quantified
    from mrkit.quantification.quantify import quantify as quantify
    from mrkit.simulation.simulate import SimulatedScan as SimulatedScan
    from mrkit.simulation.simulate import simulate_ulf as simulate_ulf
    from mrkit.superresolution.several import SuperResolvedSeveral as SuperResolvedSeveral
    from mrkit.superresolution.several import superresolve_several as superresolve_several
    from mrkit.superresolution.superresolve import SuperResolved as SuperResolved
    from mrkit.superresolution.superresolve import superresolve as superresolve

_PLACES = {
    "Quantified": "mrkit.quantification.quantify",
    "SimulatedScan": "mrkit.simulation.simulate",
    "SuperResolved": "mrkit.superresolution.superresolve",
    "SuperResolvedSeveral": "mrkit.superresolution.several",
    "quantify": "mrkit.quantification.quantify",
    "simulate_ulf": "mrkit.simulation.simulate",
    "superresolve": "mrkit.superresolution.superresolve",
    "superresolve_several": "mrkit.superresolution.several",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mrkit' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
