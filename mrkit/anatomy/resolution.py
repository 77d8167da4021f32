"""How finely a scan was acquired: what its user says, what mrkit's own sidecar states, what a converter's says."""

from __future__ import annotations

from mrcore.data.acquisition import Acquisition, Psf, from_json
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.io.bids.resolution import NOTHING_GIVEN, GivenResolution, stated_psf
from mrkit.anatomy.finding import Notes

GIVEN_KEY = "GivenResolution"
"""Key of a scan's `meta` under which `with_resolution` puts what its user says."""


def with_resolution(scan: Volume, given: GivenResolution) -> Volume:
    """Return the scan with what its user says of its resolution, which `psf_of` takes before all else."""
    return scan if given == NOTHING_GIVEN else Volume(scan.data, scan.grid, {**scan.meta, GIVEN_KEY: given})


def psf_of(scan: Volume) -> tuple[Psf, Notes]:
    """Return the point spread of a scan, and notes on where it is from.

    What the user gave comes first, then what a sidecar of mrkit states for this grid, then what that of a converter
    says of slices and acquired matrix; one voxel on every axis where nothing is said.
    """
    given = scan.meta.get(GIVEN_KEY, NOTHING_GIVEN)
    if not isinstance(given, GivenResolution):
        raise BadInputError(f"{GIVEN_KEY} in the meta of a scan must be a GivenResolution, got {given!r}")
    if given == NOTHING_GIVEN and (acquisition := stated_acquisition(scan)) is not None:
        return acquisition.psf, ("point spread: from the scan's sidecar",)
    psf, notes = stated_psf(scan.meta, scan.grid, given)
    return psf, notes or ("point spread: assumed, truncation and a Gaussian of one voxel FWHM per axis",)


def stated_acquisition(scan: Volume) -> Acquisition | None:
    """Return what the sidecar states, where it holds for the scan's grid."""
    if "Acquisition" not in scan.meta:
        return None
    acquisition = from_json(scan.meta)
    alike = zip(acquisition.voxel_mm, scan.grid.spacing_mm, strict=True)
    return acquisition if all(abs(a - b) < 1e-3 * b for a, b in alike) else None
