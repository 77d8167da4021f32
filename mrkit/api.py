"""The verbs: `simulate_ulf`, `superresolve`, `superresolve_several` and `quantify`. Objects in, objects out."""

from mrkit.quantification import Quantified, quantify
from mrkit.several import SuperResolvedSeveral, superresolve_several
from mrkit.simulation import SimulatedScan, simulate_ulf
from mrkit.superresolution import SuperResolved, superresolve

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
