"""The XML header of an ISMRMRD file: spaces, encoding limits, channels and the train of a fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from xml.etree import ElementTree as ET

import torch

from mrcore.data.grid import Shape3, Triple
from mrcore.errors import BadInputError
from mrcore.signals.mrf_sequence import MrfSequence

if TYPE_CHECKING:
    from recon.rawdata import RawData

_NAMESPACE = "http://www.ismrm.org/ISMRMRD"
_AXES = ("x", "y", "z")
_TIMES = ("TR", "TE", "TI")
_LIMITS = ("minimum", "maximum", "center")


@dataclass(frozen=True)
class Header:
    """What the header says; `limits` are minimum, maximum and centre by counter, `train` lists in ms and degrees.

    `matrix` and `voxel_mm` are those of the image to reconstruct. `n_coils` is None where it is not stated.
    """

    encoded_matrix: Shape3
    encoded_fov_mm: Triple
    matrix: Shape3
    voxel_mm: Triple
    trajectory: str
    limits: dict[str, tuple[int, int, int]]
    n_coils: int | None
    train: dict[str, list[float]]

    def sequence(self) -> MrfSequence | None:
        """Return the train, where the header lists more than one flip angle, TR and TE."""
        flips, tr_ms, te_ms, ti_ms = (self.train[name] for name in ("flipAngle_deg", *_TIMES))
        if len(flips) < 2 or not tr_ms or not te_ms:
            return None
        tr_s, te_s = (torch.tensor(v if len(v) > 1 else v[0]).double() / 1000 for v in (tr_ms, te_ms))
        return MrfSequence(torch.tensor(flips).double(), tr_s, te_s, ti_ms[0] / 1000 if ti_ms else None)


def parse_header(text: str, path: Path, fov_mm: Triple | None = None) -> Header:
    """Return the header; `fov_mm` replaces the fields of view, of encoded and reconstructed space.

    Raises:
        BadInputError: XML that cannot be read, or without a matrix or a field of view.
    """
    try:
        root = ET.fromstring(text)
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        encoding = root.find("encoding")
        if encoding is None:
            raise BadInputError(f"{path}: the header has no encoding")
        encoded = _space(encoding.find("encodedSpace"), fov_mm, path)
        recon = encoding.find("reconSpace")
        matrix, fov = encoded if recon is None else _space(recon, fov_mm, path)
        limits = {  # the header says `encoding` where the counters say `encode`
            element.tag.replace("encoding", "encode"): cast(
                "tuple[int, int, int]", tuple(int(_text(element, n)) for n in _LIMITS)
            )
            for element in encoding.findall("encodingLimits/*")
        }
        coils = root.findtext("acquisitionSystemInformation/receiverChannels")
        train = {
            name: [float(e.text or "nan") for e in root.findall(f"sequenceParameters/{name}")]
            for name in ("flipAngle_deg", *_TIMES)
        }
    except (ET.ParseError, ValueError) as error:
        if isinstance(error, BadInputError):
            raise
        raise BadInputError(f"{path}: the header cannot be read ({error})") from error
    voxel = cast("Triple", tuple(f / n for f, n in zip(fov, matrix, strict=True)))
    kind = (encoding.findtext("trajectory") or "other").lower()
    return Header(*encoded, matrix, voxel, kind, limits, int(coils) if coils else None, train)


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


def _space(element: ET.Element | None, fov_mm: Triple | None, path: Path) -> tuple[Shape3, Triple]:
    """Return the matrix and the field of view of a space."""
    if element is None:
        raise BadInputError(f"{path}: the header has no encoded space")
    matrix = cast("Shape3", tuple(int(_text(element, f"matrixSize/{axis}")) for axis in _AXES))
    fov = fov_mm or cast("Triple", tuple(float(_text(element, f"fieldOfView_mm/{axis}")) for axis in _AXES))
    if min(matrix) < 1 or not min(fov) > 0:
        raise BadInputError(
            f"{path}: the header says a matrix of {matrix} and a field of view of {fov} mm; both must be positive. "
            "Give the field of view in mm where the header lacks it"
        )
    return matrix, fov


def _text(element: ET.Element, name: str) -> str:
    text = element.findtext(name)
    if text is None:
        raise ValueError(f"{element.tag} has no {name}")
    return text


def _nested(root: ET.Element, names: str, value: object) -> None:
    for name in names.split("/"):
        root = ET.SubElement(root, name)
    root.text = str(value)
