"""The XML header of an ISMRMRD file: spaces, encoding limits, channels and the train of a fingerprint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from xml.etree import ElementTree as ET

import numpy as np

from mrcore.data.grid import Shape3, Triple
from mrcore.errors import BadInputError
from mrcore.io.nifti_place import LARGEST_VOXEL_MM, SMALLEST_VOXEL_MM
from mrcore.notes import Caution
from mrcore.signals.mrf_sequence import MrfSequence
from recon.files.sequences import Column, sequence_from_table

if TYPE_CHECKING:
    from recon.rawdata import RawData

_NAMESPACE = "http://www.ismrm.org/ISMRMRD"
_AXES = ("x", "y", "z")
_TIMES = ("TR", "TE", "TI")
_LIMITS = ("minimum", "maximum", "center")
_MM_PER = {"m": 1e3, "cm": 10.0, "um": 1e-3}
_LARGEST_FOV_MM = 2000.0  # twice that of a body: readouts are oversampled
_WHOLE_BRAIN_MM = 80.0


@dataclass(frozen=True)
class Space:
    """What the header says of one encoding; `limits` are minimum, maximum and centre by counter.

    `matrix` and `voxel_mm` are those of the image to reconstruct.
    """

    encoded_matrix: Shape3
    encoded_fov_mm: Triple
    matrix: Shape3
    voxel_mm: Triple
    trajectory: str
    limits: dict[str, tuple[int, int, int]]

    @property
    def encoded_voxel_mm(self) -> Triple:
        """Size of a voxel of the encoded space."""
        return _voxel_mm(self.encoded_matrix, self.encoded_fov_mm)

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """What must be said of the field of view."""
        longest = max(n * size for n, size in zip(self.matrix, self.voxel_mm, strict=True))
        if longest >= _WHOLE_BRAIN_MM:
            return ()
        text = f"the field of view is at most {longest:.4g} mm, not a whole brain: the format wants mm, are they cm?"
        return (Caution(text, rank=0),)


@dataclass(frozen=True)
class Header:
    """The encodings of a header, and what holds for all: `train` lists in ms and degrees.

    `n_coils` is None where it is not stated.
    """

    encodings: tuple[ET.Element, ...]
    n_coils: int | None
    train: dict[str, list[float]]

    def sequence(self) -> MrfSequence | None:
        """Return the train, where the header lists more than one flip angle, TR and TE.

        Raises:
            BadInputError: numbers that another unit than that of the format would explain.
        """
        flips, tr_ms, te_ms, ti_ms = (self.train[name] for name in ("flipAngle_deg", *_TIMES))
        if len(flips) < 2 or not tr_ms or not te_ms:
            return None
        table = {name: np.array(values) for name, values in self.train.items()}
        ti_s = ti_ms[0] / 1000 if ti_ms else None
        return sequence_from_table(table, Column("flipAngle_deg", "deg"), Column("TR", "ms"), Column("TE", "ms"), ti_s)

    def space(self, index: int, path: Path, fov_mm: Triple | None = None) -> Space:
        """Return the encoding that acquisitions call `index`; `fov_mm` replaces its fields of view.

        Raises:
            BadInputError: there is none, it lacks what is needed, or has voxels that are none of an MRI scan.
        """
        if index >= len(self.encodings):
            raise BadInputError(
                f"{path}: acquisitions refer to encoding {index}, the header has {len(self.encodings)} (from 0)"
            )
        encoding = self.encodings[index]
        try:
            encoded = _matrix_and_fov(encoding.find("encodedSpace"), fov_mm, path)
            recon = encoding.find("reconSpace")
            matrix, fov = encoded if recon is None else _matrix_and_fov(recon, fov_mm, path)
            limits = {  # the header says `encoding` where the counters say `encode`
                element.tag.replace("encoding", "encode"): cast(
                    "tuple[int, int, int]", tuple(int(_text(element, n)) for n in _LIMITS)
                )
                for element in encoding.findall("encodingLimits/*")
            }
        except ValueError as error:
            if isinstance(error, BadInputError):
                raise
            raise BadInputError(f"{path}: encoding {index} of the header cannot be read ({error})") from error
        kind = (encoding.findtext("trajectory") or "other").lower()
        return Space(*encoded, matrix, _voxel_mm(matrix, fov), kind, limits)


def parse_header(text: str, path: Path) -> Header:
    """Return the header.

    Raises:
        BadInputError: XML that cannot be read, or without an encoding.
    """
    try:
        root = ET.fromstring(text)
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        coils = root.findtext("acquisitionSystemInformation/receiverChannels")
        train = {
            name: [float(e.text or "nan") for e in root.findall(f"sequenceParameters/{name}")]
            for name in ("flipAngle_deg", *_TIMES)
        }
        n_coils = int(coils) if coils else None
    except (ET.ParseError, ValueError) as error:
        raise BadInputError(f"{path}: the header cannot be read ({error})") from error
    encodings = tuple(root.findall("encoding"))
    if not encodings:
        raise BadInputError(f"{path}: the header has no encoding")
    return Header(encodings, n_coils, train)


def header_text(raw: RawData) -> str:
    """Return the XML header of raw data.

    Raises:
        BadInputError: a sequence with RF phases or an imperfect inversion.
    """
    sequence = raw.sequence
    if sequence is not None and (sequence.phase_deg is not None or sequence.inversion_efficiency != 1):
        raise BadInputError(
            "ISMRMRD has no place for RF phases or the efficiency of the inversion: write .npz, or no sequence"
        )
    root = ET.Element("ismrmrdHeader", {"xmlns": _NAMESPACE})
    _nested(root, "acquisitionSystemInformation/receiverChannels", raw.n_coils)
    _nested(root, "experimentalConditions/H1resonanceFrequency_Hz", 0)  # demanded by the format; 0: not known
    encoding = ET.SubElement(root, "encoding")
    for space in ("encodedSpace", "reconSpace"):
        element = ET.SubElement(encoding, space)
        for name, values in (("matrixSize", raw.grid.shape), ("fieldOfView_mm", raw.grid.fov_mm)):
            part = ET.SubElement(element, name)
            for axis, value in zip(_AXES, values, strict=True):
                ET.SubElement(part, axis).text = repr(value)
    repetition = ET.SubElement(ET.SubElement(encoding, "encodingLimits"), "repetition")
    for name, value in zip(_LIMITS, (0, raw.n_frames - 1, 0), strict=True):
        ET.SubElement(repetition, name).text = str(value)
    _nested(encoding, "trajectory", "other")
    if sequence is not None:
        parameters = ET.SubElement(root, "sequenceParameters")
        times = {"TR": sequence.tr_s.tolist(), "TE": sequence.te_s.tolist()}
        times["TI"] = [] if sequence.ti_s is None else [sequence.ti_s]
        for name, seconds in times.items():
            for value in seconds:
                ET.SubElement(parameters, name).text = repr(value * 1000)
        for value in sequence.flip_deg.tolist():
            ET.SubElement(parameters, "flipAngle_deg").text = repr(value)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode")


def _matrix_and_fov(element: ET.Element | None, fov_mm: Triple | None, path: Path) -> tuple[Shape3, Triple]:
    """Return the matrix and the field of view of a space, if they make voxels of an MRI scan."""
    if element is None:
        raise BadInputError(f"{path}: the header has no encoded space")
    matrix = cast("Shape3", tuple(int(_text(element, f"matrixSize/{axis}")) for axis in _AXES))
    fov = fov_mm or cast("Triple", tuple(float(_text(element, f"fieldOfView_mm/{axis}")) for axis in _AXES))
    if min(matrix) < 1 or not all(0 < f < math.inf for f in fov):
        raise BadInputError(
            f"{path}: the header says a matrix of {matrix} and a field of view of {fov} mm; both must be positive. "
            "Give the field of view in mm where the header lacks it (--fov)"
        )
    if not _is_plausible(matrix, fov):
        sizes = " x ".join(f"{size:.4g}" for size in _voxel_mm(matrix, fov))
        in_mm = {unit: tuple(mm * f for f in fov) for unit, mm in _MM_PER.items()}
        units = [unit for unit, f in in_mm.items() if _is_plausible(matrix, f) and max(f) >= _WHOLE_BRAIN_MM]
        guess = f"the field of view looks like {' or '.join(units)}" if units else "no common unit explains them"
        shape, size = " x ".join(map(str, matrix)), " x ".join(f"{f:.4g}" for f in fov)
        raise BadInputError(
            f"{path}: the {element.tag} of {shape} over {size} mm "
            f"has voxels of {sizes} mm, which are not those of an MRI scan; {guess}. Say it in mm with --fov"
        )
    return matrix, fov


def _is_plausible(matrix: Shape3, fov_mm: tuple[float, ...]) -> bool:
    voxel_mm = _voxel_mm(matrix, fov_mm)
    return min(voxel_mm) >= SMALLEST_VOXEL_MM and max(voxel_mm) <= LARGEST_VOXEL_MM and max(fov_mm) <= _LARGEST_FOV_MM


def _voxel_mm(matrix: Shape3, fov_mm: tuple[float, ...]) -> Triple:
    return cast("Triple", tuple(f / n for f, n in zip(fov_mm, matrix, strict=True)))


def _text(element: ET.Element, name: str) -> str:
    text = element.findtext(name)
    if text is None:
        raise ValueError(f"{element.tag} has no {name}")
    return text


def _nested(root: ET.Element, names: str, value: object) -> None:
    for name in names.split("/"):
        root = ET.SubElement(root, name)
    root.text = str(value)
