"""Tissue segmentation by other packages, all of the signature `mrcore.segmentation.tissues.Segmenter`."""

from __future__ import annotations

import importlib
import os
import tempfile
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, MissingExtraError
from mrcore.segmentation.tissues import T1W_ORDER, T2W_ORDER, Segmentation, Segmenter, check_segmentable

Maps = NDArray[np.float32]
Order = tuple[str, str, str]

_FAST_TYPES = {T1W_ORDER: 1, T2W_ORDER: 2}


def fast_segmenter(tissue_order: Order = T1W_ORDER) -> Segmenter:
    """Return FSL FAST (Zhang 2001), called through fslpy; FSL itself must be installed (FSLDIR).

    Raises:
        BadInputError: a tissue order that FAST does not know (it knows those of T1w and T2w).
        MissingExtraError: FSL or fslpy is not there.
    """
    if tissue_order not in _FAST_TYPES:
        raise BadInputError(
            f"FAST knows T1w and T2w contrasts, not tissues in the order {tissue_order}; use another way"
        )
    fslpy = _library("fsl.wrappers", "FSL FAST needs fslpy: pip install fslpy")
    home = os.environ.get("FSLDIR", "")
    if not home or not (Path(home) / "bin" / "fast").exists():
        raise MissingExtraError(
            "FSL FAST is not installed here: no fast in $FSLDIR/bin "
            f"(FSLDIR is {home or 'not set'}); install FSL and set FSLDIR, or use another segmenter"
        )

    def run(volume: Volume, mask: Tensor) -> Segmentation:
        check_segmentable(volume, mask)
        with tempfile.TemporaryDirectory() as folder:
            base, stem = Path(folder) / "brain.nii.gz", Path(folder) / "out"
            brain = np.where(mask.numpy(), volume.data.cpu().numpy(), 0).astype(np.float32)
            nib.save(nib.Nifti1Image(brain, volume.grid.affine), base)
            fslpy.fast(str(base), out=str(stem), n_classes=3, t=_FAST_TYPES[tissue_order])
            files = [Path(folder) / f"out_pve_{k}.nii.gz" for k in range(3)]
            missing = [file.name for file in files if not file.exists()]
            if missing:
                raise BadInputError(
                    f"FSL FAST ended without writing {', '.join(missing)}; run it by hand on this image"
                )
            maps = np.stack([np.asarray(nib.Nifti1Image.from_filename(f).dataobj, np.float32) for f in files])
        # How FAST numbers its classes depends on the contrast; their brightness does not.
        return _result(volume, mask, _sorted(volume, mask, maps, tissue_order), "FSL FAST")

    return run


def atropos_segmenter(tissue_order: Order = T1W_ORDER) -> Segmenter:
    """Return Atropos of ANTs (Avants, Neuroinformatics 2011) from antspyx, started by k-means.

    Raises:
        MissingExtraError: antspyx is not installed (`pip install "mrkit[ants]"`).
    """
    ants = _library("ants", 'Atropos needs antspyx: pip install "mrkit[ants]"')

    def run(volume: Volume, mask: Tensor) -> Segmentation:
        check_segmentable(volume, mask)
        spacing = volume.grid.spacing_mm
        image = ants.from_numpy(volume.data.cpu().numpy().astype(np.float32), spacing=spacing)
        inside = ants.from_numpy(mask.numpy().astype(np.float32), spacing=spacing)
        found = ants.atropos(a=image, x=inside, i="kmeans[3]", m="[0.2,1x1x1]", c="[10,0]")
        maps = np.stack([np.asarray(p.numpy(), np.float32) for p in found["probabilityimages"]])
        return _result(volume, mask, _sorted(volume, mask, maps, tissue_order), "ANTs Atropos")

    return run


def dipy_segmenter(tissue_order: Order = T1W_ORDER) -> Segmenter:
    """Return the HMRF of dipy (`TissueClassifierHMRF`).

    It is given float64 without its bias, since dipy 1.12 fails on masked float32 images.

    Raises:
        MissingExtraError: dipy is not installed (`pip install "mrkit[dipy]"`).
    """
    tissue = _library("dipy.segment.tissue", 'the HMRF of dipy needs dipy: pip install "mrkit[dipy]"')

    def run(volume: Volume, mask: Tensor) -> Segmentation:
        check_segmentable(volume, mask)
        brain = np.where(mask.numpy(), volume.data.cpu().numpy(), 0).astype(np.float64)
        _, _, maps = tissue.TissueClassifierHMRF(verbose=False).classify(brain, 3, 0.1)
        classes = np.moveaxis(np.asarray(maps, np.float32)[..., -3:], -1, 0)
        return _result(volume, mask, _sorted(volume, mask, classes, tissue_order), "dipy HMRF")

    return run


def _library(name: str, message: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(message) from error


def _sorted(volume: Volume, mask: Tensor, maps: Maps, tissue_order: Order) -> Maps:
    """Order classes by their mean intensity, then as TISSUES."""
    weight = np.nan_to_num(maps)[:, mask.numpy()]
    mean = weight @ volume.data.cpu().numpy()[mask.numpy()] / np.maximum(weight.sum(1), 1e-9)
    by_brightness = np.argsort(mean)
    out: Maps = maps[[by_brightness[tissue_order.index(name)] for name in TISSUES]]
    return out


def _result(volume: Volume, mask: Tensor, maps: Maps, method: str) -> Segmentation:
    """Check and normalise maps (3, X, Y, Z) in the order of TISSUES.

    Raises:
        BadInputError: NaN in the maps, an empty class, or most of the brain without any class.
    """
    inside = torch.from_numpy(np.ascontiguousarray(maps))[:, mask]
    if not bool(torch.isfinite(inside).all()):
        raise BadInputError(f"{method} gave classes that are not numbers for this image; use another segmenter")
    total = inside.clamp_min(0).sum(0)
    if float((total < 0.5).float().mean()) > 0.05:
        raise BadInputError(f"{method} left more than 5 % of the brain mask without a tissue; use another segmenter")
    # A few voxels of the mask that a tool leaves out count as fluid or what is darkest to it: the first tissue.
    share = torch.where(total > 0, inside.clamp_min(0) / total.clamp_min(1e-6), torch.tensor([[1.0], [0.0], [0.0]]))
    if float(share.mean(1).min()) < 1e-3:
        raise BadInputError(f"{method} found no {TISSUES[int(share.mean(1).argmin())]} in this image; check the mask")
    prob = torch.zeros((3, *volume.grid.shape))
    prob[:, mask] = share
    values = volume.data[mask].float()
    mean = (share @ values) / share.sum(1)
    sd = ((share * (values - mean[:, None]) ** 2).sum(1) / share.sum(1)).sqrt()
    return Segmentation(
        TissueMap(prob, TISSUES, volume.grid),
        tuple(mean.tolist()),
        tuple(sd.tolist()),
        torch.ones(volume.grid.shape),
        method,
        True,
        0,
        (),
        f"{method} finished; it does not say how many steps it took",
    )
