"""Scans in folders, and measuring each once: facts are kept beside the results and found again by their key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.io.atomic import atomic_write
from mrcore.io.sidecar import finite, software_version, stem
from mrcore.io.tissues import load_mask, load_tissues
from mrcore.io.volumes import load_volume, save_labels
from mrcore.segmentation.brainmask import is_skull_stripped, require_reliable
from mrcore.segmentation.deepbet import deepbet_brain_mask
from mrcore.segmentation.plausibility import STATED_BESIDE, require_order
from mrkit.anatomy.brain import find_brain
from mrkit.anatomy.finding import Notes, find_tissues
from mrkit.anatomy.scans import ScanFile
from mrkit.anatomy.segmenters import ORDERS, segmenter_named
from mrkit.files.images import read_scan
from ulfsim.measurement.facts import ScanFacts, facts_from_json, facts_to_json, scan_facts


@dataclass(frozen=True)
class Segmenting:
    """How tissues are found, alike on both sides: segmenter, masker, and label files beside the images if wanted."""

    segmenter: str = "mrkit"
    masker: str = "template"
    use_labels: bool = False


@dataclass(frozen=True, eq=False)
class MeasuredScan:
    """A scan with its brain mask (bool, on its grid) and what was measured of it."""

    volume: Volume
    mask: Tensor
    facts: ScanFacts


class Measurer:
    """Measures scans, and keeps what it found in `folder`: facts as JSON, tissues as a label map to look at."""

    def __init__(self, folder: Path, settings: Segmenting) -> None:
        self.folder, self.settings = folder, settings

    def of_file(self, scan: ScanFile, name: str) -> MeasuredScan:
        """Measure an image file under a `name`, or return what was measured of the same bytes before."""
        volume = read_scan(scan.path)
        labels = _labels_beside(scan.path) if self.settings.use_labels else ()
        key = f"{volume.meta['SourceSHA256']} {[_digest(p.read_bytes()) for p in labels]}"
        return self.of_volume(volume, scan.weighting, name, key, labels)

    def of_volume(
        self,
        volume: Volume,
        weighting: str,
        name: str,
        key: str,
        labels: tuple[Path, ...] = (),
        mask: Tensor | None = None,
    ) -> MeasuredScan:
        """Measure a volume in memory, with its brain mask if known; `key` stands for all that it was made from."""
        version = software_version()
        digest = _digest(f"{key} {weighting} {self.settings} {volume.grid.affine.tolist()} {version}".encode())[:16]
        facts_path = self.folder / f"{name}_{digest}.json"
        label_path = self.folder / f"{name}_{digest}_dseg.nii.gz"
        if facts_path.is_file() and label_path.is_file():
            return MeasuredScan(volume, load_mask_of(label_path, volume), _read(facts_path))
        tissues, notes = self._tissues(volume, weighting, labels, mask)
        facts = scan_facts(volume, tissues, name, notes)
        tags = (tissues.prob.argmax(0) + 1) * tissues.mask
        # The facts come last: where they are, everything is.
        save_labels(
            tags, tissues.grid, label_path, sidecar={"Description": "tissues under the fidelity facts"}, force=True
        )
        with atomic_write(facts_path, force=True) as temporary:
            temporary.write_text(
                json.dumps(finite(facts_to_json(facts)), indent=1, allow_nan=False) + "\n", encoding="utf-8"
            )
        return MeasuredScan(volume, tissues.mask, facts)

    def brain_of(self, volume: Volume) -> Tensor:
        """Return the brain mask (bool) of a volume, by the masker where it is a head."""
        if self.settings.masker == "deepbet" and not is_skull_stripped(volume):
            return require_reliable(deepbet_brain_mask(volume)).mask
        return find_brain(volume)[0]

    def _tissues(
        self, volume: Volume, weighting: str, labels: tuple[Path, ...], mask: Tensor | None
    ) -> tuple[TissueMap, Notes]:
        if labels:
            given = load_tissues(labels)
            require_order(volume, given, ORDERS[weighting], f"the labels in {labels[0].name}", STATED_BESIDE)
            return find_tissues(volume, given)
        if mask is None and self.settings.masker == "deepbet":
            mask = self.brain_of(volume)
        return find_tissues(volume, None, mask, segmenter_named(self.settings.segmenter, weighting))


def load_mask_of(label_path: Path, volume: Volume) -> Tensor:
    """Return the voxels (bool) that have any label."""
    labels = load_volume(label_path).data > 0
    return labels if labels.shape == volume.data.shape else load_mask(label_path, volume.grid)


def _labels_beside(path: Path) -> tuple[Path, ...]:
    """Return the three probability maps, or the label map, that lie beside an image under its name; none if missing."""
    name = stem(path)
    maps = tuple(path.with_name(f"{name}_label-{tissue}_probseg.nii.gz") for tissue in ("CSF", "GM", "WM"))
    if all(p.is_file() for p in maps):
        return maps
    one = path.with_name(f"{name}_dseg.nii.gz")
    return (one,) if one.is_file() else ()


def _read(path: Path) -> ScanFacts:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read as JSON ({error}); remove it to measure again") from None
    return facts_from_json(values)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
