"""Small NIfTI files of any orientation."""

import nibabel as nib
import numpy as np

SHAPE = (5, 6, 7)


def an_image(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).uniform(1, 100, shape).astype(np.float32)


def oriented(order, flips, spacing_mm=(0.9, 1.3, 5.2)):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(order)] * flips * np.asarray(spacing_mm)
    affine[:3, 3] = (-31.5, 17.25, 4.125)
    return affine


def oblique(angles_deg=(10.0, -25.0, 40.0), spacing_mm=(0.9, 1.3, 5.2), flip=1):
    affine = np.eye(4)
    a, b, c = np.radians(angles_deg)
    affine[:3, :3] = nib.eulerangles.euler2mat(a, b, c) * np.asarray(spacing_mm) * (flip, 1, 1)
    affine[:3, 3] = (-31.5, 17.25, 4.125)
    return affine


def write(path, data, affine, codes=(1, 1), header_type=nib.Nifti1Image):
    image = header_type(data, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_sform(affine, code=codes[0])
    image.header.set_qform(affine, code=codes[1])
    image.to_filename(path)
    return path
