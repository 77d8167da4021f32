"""Fit and apply transfer functions from files to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mrcore.data.acquisition import Acquisition, PulseSequence
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.io.atomic import refuse_existing
from mrcore.io.sidecar import stem
from mrkit.files.images import read_scan
from mrkit.files.outputs import ImageOutput, OutputNames, check_outputs, write_results
from mrkit.files.provenance import Record, distinct_names
from mrkit.files.warn import warn_of
from ulfsim.likeness import likeness, likeness_notes
from ulfsim.plan import plan_scan
from ulfsim.transfer import TransferFunction, degrade, load_transfer, save_transfer
from ulfsim.transfer_fit import ScanPair, fit_transfer


def fit_files(
    scans: Sequence[Path], out: Path, smoothness: float | None = None, *, force: bool = False
) -> TransferFunction:
    """Fit a transfer function to `scans` (high, low, high, low, ...) and write it; return it.

    Raises:
        BadInputError: an odd number of scans, scans that cannot be used, a pair that does not overlap or does not
            correlate, an output that exists.
        GridMismatchError: a low-field scan that is not on the grid of its high-field scan.
    """
    if len(scans) % 2:
        raise BadInputError(f"scans come in pairs, high field then low field; got {len(scans)} files")
    if out.resolve() in {scan.resolve() for scan in scans}:
        raise BadInputError(f"{out} is an input and would be written over; choose another output")
    if out.suffix != ".npz":
        raise BadInputError(f"a transfer function is saved as .npz, got '{out.name}'")
    refuse_existing([out], force=force)
    names = distinct_names(scans)
    pairs = [
        ScanPair(f"{names[high]} {names[low]}", read_scan(high), read_scan(low))
        for high, low in zip(scans[::2], scans[1::2], strict=True)
    ]
    found = fit_transfer(pairs, smoothness=smoothness)
    warn_of(note for pair in pairs for note in likeness_notes(pair.name, likeness(pair.high, pair.low)))
    save_transfer(found, out, force=force)
    return found


def apply_files(
    image: Path, transfer: Path, out: Path, seed: int, voxel_mm: Triple | None = None, *, force: bool = False
) -> Path:
    """Degrade `image` with a saved transfer function, write the scan with its sidecar; return its path."""
    path = OutputNames(out, stem(image)).image("transfer")
    check_outputs([path], [], [image, transfer], force=force)
    volume, found = read_scan(image), load_transfer(transfer)
    scan_grid = None
    if voxel_mm is not None:
        scan_grid = plan_scan(volume.grid, Acquisition(0.064, voxel_mm, PulseSequence("T1w"))).scan_grid
    scan = degrade(volume, found, seed, scan_grid)
    parameters = {
        "Transfer": transfer.name,
        "VoxelMm": voxel_mm,
        "Pairs": list(found.pairs),
        "Smoothness": found.smoothness,
    }
    record = Record({"image": image, "transfer": transfer}, seed, parameters)
    write_results([ImageOutput(path, scan)], record.sidecar(), force=force)
    return path
