"""The verbs: `simulate_ulf`, `superresolve` and `quantify`. Objects in, objects out."""

from mrkit.quantification import Quantified, quantify
from mrkit.simulation import SimulatedScan, simulate_ulf
from mrkit.superresolution import SuperResolved, superresolve

__all__ = ["Quantified", "SimulatedScan", "SuperResolved", "quantify", "simulate_ulf", "superresolve"]
