"""`mrkit measure`: contrast, noise and sharpness of a scan."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_brain, add_command, at_least_one

if TYPE_CHECKING:
    from mrkit.arguments import Commands

_DESCRIPTION = """\
Measure a scan of a brain, high-field or ultra-low-field: mean, SNR and CNR of its tissues with 95 % intervals, the
noise and how it was found, the colour of the noise, and the edge spread along each axis beside the nominal voxel."""

_EPILOG = """\
examples:
  mrkit measure ulf_T1w.nii.gz
  mrkit measure ulf_T1w.nii.gz --tissues ulf_dseg.nii.gz --json > measured.json
  mrkit measure stripped_T2w.nii.gz --weighting T2w
  mrkit measure ulf_T1w.nii.gz --out measured/                   table, page and the tissues to look at

--out DIR also writes, for an input SCAN.nii.gz:
  SCAN_measure.html                   tables, pictures of tissues and cores, plots; one file, nothing is fetched
  SCAN_measure.json                   what --json prints, with the SHA-256 of what was read
  SCAN_dseg.nii.gz, SCAN_label-CSF|GM|WM_probseg.nii.gz    the tissues that it rests on; look at them first

how to read it:
Signals are free of the bias that Rician noise adds; SNR is signal over the noise sd of one real channel. Noise comes
from the air around the head; where that was set to 0 or filtered, from second differences within a tissue. It is then
only known to lie between the value for white noise and the one for the colour that the tissue shows; SNR and CNR are
given for the larger noise. The noise kernel is what white noise would have been filtered with (0: white). The edge
spread is the full width at half maximum of the line spread of the borders that the scan shows; soft borders widen it,
so compare scans of like objects. Intervals answer for noise, anatomy and noise estimate, not for wrong tissue maps."""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "measure",
        summary="contrast, noise and sharpness of a scan",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("image", type=Path, metavar="SCAN", help="scan of a brain, with or without its skull")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for page, table and tissues; without it nothing is written"
    )
    parser.add_argument("--force", action="store_true", help="replace results that exist in --out")
    add_brain(parser, "SCAN")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: all cores)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was measured, write it where a folder was named; return 0."""
    from mrkit.devices import use_threads
    from mrkit.files.job import Job
    from mrkit.measurement.job import measure_file, measure_to_folder
    from mrkit.measurement.measured import as_json, as_text

    use_threads(arguments.threads)
    job = Job(
        image=arguments.image,
        out=arguments.out or Path(),
        mask=arguments.mask,
        masker=arguments.masker,
        tissues=tuple(arguments.tissues or ()),
        labels=arguments.labels,
        segmenter=arguments.segmenter,
        weighting=arguments.weighting,
        force=arguments.force,
    )
    found, written = (measure_file(job), []) if arguments.out is None else measure_to_folder(job)
    if arguments.json:
        sys.stdout.write(as_json(found) + "\n")
        return 0
    sys.stdout.write("\n".join([as_text(found), *(f"wrote {path}" for path in written)]) + "\n")
    return 0
