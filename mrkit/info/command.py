"""`mrkit info`: what an image file is, and every reason why it may be unusable."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_command

if TYPE_CHECKING:
    from mrkit.arguments import Commands
    from mrkit.info.inspection import FileReport, IntensityFacts, PlaceFacts

_EPILOG = """\
examples:
  mrkit info scan.nii.gz
  mrkit info scan.nii.gz --json | jq .problems

Every command that takes a scan finds the same: it stops at errors, and prints warnings.
Exit code 0 when the file can be used as a scan (warnings may be listed), 2 when not."""

_CODES = ("not set", "scanner", "aligned", "Talairach", "MNI", "template")
_SHOWN_AS = {"refuse": "error", "caution": "warning", "note": "note"}
_SHOWN = (
    "Description",
    "Units",
    "Manufacturer",
    "ManufacturersModelName",
    "MagneticFieldStrength",
    "ProtocolName",
    "SeriesDescription",
    "PulseSequenceName",
    "SequenceName",
    "ScanningSequence",
    "SequenceVariant",
    "MRAcquisitionType",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "EchoTrainLength",
    "PixelBandwidth",
    "SliceThickness",
    "SpacingBetweenSlices",
    "AcquisitionMatrixPE",
    "ReconMatrixPE",
    "BaseResolution",
    "SkullStripped",
    "GeneratedBy",
    "Sources",
)


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "info",
        summary="what an image is, and every reason why it may be unusable",
        description="Say what an image file is: format, voxels, orientation, intensities, noise, sidecar; and list "
        "every reason why it may be unusable as a scan: errors, warnings and notes.",
        epilog=_EPILOG,
    )
    parser.add_argument("image", type=Path, metavar="FILE", help="NIfTI-1/2 (.nii, .nii.gz) or MGH (.mgh, .mgz)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report; return 0 when the file can be used as a scan, else 2."""
    from mrkit.info.inspection import inspect_file

    report = inspect_file(arguments.image)
    text = as_text(report)
    if arguments.json:
        text = json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")
    return 0 if report.usable else 2


def as_json(report: FileReport) -> dict[str, object]:
    """Return the report as JSON values; what is not finite becomes null."""
    from dataclasses import asdict

    from mrcore.io.sidecar import finite

    values = {
        "path": str(report.path),
        "usable": report.usable,
        "format": report.format,
        "sha256": report.sha256,
        "kind": report.kind,
        "skull_stripped": report.skull_stripped,
        "place": asdict(report.place) if report.place else None,
        "intensity": asdict(report.intensity) if report.intensity else None,
        "resolution": list(report.resolution),
        "sidecar": dict(report.sidecar),
        "problems": [asdict(problem) for problem in report.problems],
    }
    return {key: finite(value) for key, value in values.items()}


def as_text(report: FileReport) -> str:
    """Return the report as lines for a reader."""
    rows: list[tuple[str, str]] = [("format", report.format or "not known"), ("looks", report.kind)]
    if report.skull_stripped is not None:
        rows.append(("skull", "removed" if report.skull_stripped else "present: a brain mask is needed or computed"))
    if report.place is not None:
        rows += _place_rows(report.place)
    if report.intensity is not None:
        rows += _intensity_rows(report.intensity)
    rows += [("acquired", text) for text in report.resolution]
    rows += [(key, _short(report.sidecar[key])) for key in _SHOWN if key in report.sidecar]
    if not report.sidecar and report.format:
        rows.append(("sidecar", "none; sequence and field strength are not known"))
    if report.sha256:
        rows.append(("SHA-256", report.sha256))
    width = max(len(name) for name, _ in rows)
    lines = [str(report.path), *(f"  {name:<{width}}  {value}" for name, value in rows)]
    lines += [f"{_SHOWN_AS[problem.severity]}: {problem.text}" for problem in report.problems]
    return "\n".join([*lines, _verdict(report)])


def _verdict(report: FileReport) -> str:
    n_errors = sum(problem.fatal for problem in report.problems)
    n_warnings = sum(problem.severity == "caution" for problem in report.problems)
    if n_errors:
        return f"not usable as a scan: {n_errors} error(s), {n_warnings} warning(s)"
    return f"usable, {n_warnings} warning(s)" if n_warnings else "usable"


def _place_rows(place: PlaceFacts) -> list[tuple[str, str]]:
    oblique = f"oblique by {place.obliquity_deg:.2f} degrees" if place.obliquity_deg > 0.005 else "not oblique"
    rows = [
        ("shape", " x ".join(map(str, place.shape))),
        ("voxel", " x ".join(f"{size:.4g}" for size in place.voxel_mm) + " mm"),
        ("field of view", " x ".join(f"{size:.1f}" for size in place.fov_mm) + " mm"),
        ("orientation", f"{place.orientation}, {oblique}"),
    ]
    if place.sform_code is not None and place.qform_code is not None:
        apart = "" if place.disagreement_mm is None else f"; they differ by {place.disagreement_mm:.2g} mm"
        rows.append(("transforms", f"sform {_code(place.sform_code)}, qform {_code(place.qform_code)}{apart}"))
        rows.append(("unit of length", place.units if place.units != "unknown" else "not said, mm assumed"))
    return rows


def _intensity_rows(facts: IntensityFacts) -> list[tuple[str, str]]:
    percentiles = ", ".join(f"{percent} %: {value:.5g}" for percent, value in facts.percentiles.items())
    snr = "" if facts.snr is None else f"; SNR of the bright half about {facts.snr:.1f}"
    return [
        ("stored as", f"{facts.stored_dtype}, slope {facts.slope:.6g}, intercept {facts.intercept:.6g}"),
        ("intensity", f"{facts.low:.6g} to {facts.high:.6g}; {facts.zero_share:.1%} of the voxels are 0"),
        ("percentiles", f"{percentiles} (of voxels that are not 0)"),
        ("noise", f"{facts.noise_method}{snr}"),
    ]


def _code(code: int) -> str:
    return f"{code} ({_CODES[code]})" if 0 <= code < len(_CODES) else str(code)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."
