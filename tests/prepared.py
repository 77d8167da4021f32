"""One scan ready for a fit, from its parts."""

from torch import Tensor

from inr.scans.single import OneScan
from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.operators.linop import LinearOp
from mrkit.superresolution.prepare import Prepared


def one_scan(
    scan: Volume,
    scale: float,
    noise_sd: float,
    lattice: Grid,
    operator: LinearOp,
    start: Tensor,
    foreground: Tensor,
    tissues: TissueMap,
) -> Prepared:
    """Return a scan with WM = 1 and noise of `noise_sd` as prepared; `start` is (X, Y, Z)."""
    return Prepared(
        scans=(scan,),
        data=OneScan(scan.data, operator, noise_sd),
        weightings=("T1w",),
        contrasts=("T1w",),
        scales=(scale,),
        noise_sds=(noise_sd * scale,),
        lattice=lattice,
        output_grid=lattice,
        start=start[None],
        foreground=foreground,
        tissues=tissues,
        resegment=None,
        notes=(),
    )
