"""The verbs: `simulate_ulf` and `superresolve`. Objects in, objects out; files are the command line's business."""

from mrkit.simulation import SimulatedScan, simulate_ulf
from mrkit.superresolution import SuperResolved, superresolve

__all__ = ["SimulatedScan", "SuperResolved", "simulate_ulf", "superresolve"]
