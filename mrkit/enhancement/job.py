"""Enhance one scan from files to files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from iqt.files import load_restorer
from mrcore.data.volume import Volume
from mrcore.io.sidecar import file_sha256, stem
from mrcore.io.volumes import load_volume
from mrkit.anatomy.subject import read_mask
from mrkit.enhancement.enhance import TRUST_SD, Enhanced, enhance
from mrkit.enhancement.page import enhance_report
from mrkit.files.outputs import ImageOutput, Output, OutputNames, check_outputs, text_output, write_results
from mrkit.files.provenance import Record
from mrkit.files.warn import warn_of
from mrkit.report.report import build_page


@dataclass(frozen=True)
class EnhanceJob:
    """What `mrkit enhance` is asked for.

    Attributes:
        image: the scan.
        out: folder of the results.
        network: .safetensors of the network.
        mask: brain mask on the scan's grid; None to find the brain.
        masker: what finds the brain of a head, `template` or `deepbet`.
        voxel_mm: of the result.
        noise_sd: in the scan's units; None to estimate it.
        n_mirrored: passes over mirrored copies, 1 to 8.
        trust_sd: error that the network is trusted to have, relative to bright tissue; None for no tether.
        with_report: whether to write the HTML page.
        force: replace results that exist, and go on outside the network's ranges.
    """

    image: Path
    out: Path
    network: Path
    mask: Path | None = None
    masker: str = "template"
    voxel_mm: float = 1.0
    noise_sd: float | None = None
    n_mirrored: int = 8
    trust_sd: float | None = TRUST_SD
    with_report: bool = True
    force: bool = False


def enhance_to_folder(job: EnhanceJob) -> tuple[Enhanced, list[Path]]:
    """Enhance the scan of `job`, write image, start, spread, residuals and page, and return what was written.

    Raises:
        BadInputError: a file that cannot be used, a scan outside the network's ranges, results that exist.
        GridMismatchError: a mask on another grid.
        MissingExtraError: the masker is not installed.
    """
    names = OutputNames(job.out, stem(job.image))
    files = {"image": job.image, "network": job.network, **({"mask": job.mask} if job.mask else {})}
    image, start, sd, residual = (
        names.image(name) for name in ("enhanced", "enhanced_start", "enhanced_sd", "enhanced_residualz")
    )
    page = names.report("enhanced")
    check_outputs([image, start, sd, residual], [page] if job.with_report else [], files.values(), force=job.force)
    scan = load_volume(job.image)
    done = enhance(
        scan,
        load_restorer(job.network),
        mask=read_mask(job.mask, scan, job.masker),
        voxel_mm=job.voxel_mm,
        noise_sd=job.noise_sd,
        n_mirrored=job.n_mirrored,
        trust_sd=math.inf if job.trust_sd is None else job.trust_sd,
        force=job.force,
    )
    warn_of(done.notes)
    record = Record(files, None, _parameters(job), done.notes)
    synthetic = {"Synthetic": True, "NetworkSHA256": file_sha256(job.network)}
    outputs: list[Output] = [ImageOutput(image, done.image, scan, synthetic), ImageOutput(start, done.start, scan)]
    if done.sd is not None:
        outputs.append(ImageOutput(sd, done.sd, scan))
    outputs.append(ImageOutput(residual, done.residual_z, scan))
    if job.with_report:
        seen = Volume(scan.data.to(torch.float32), scan.grid, scan.meta)
        outputs.append(text_output(page, build_page(enhance_report(seen, done, record))))
    return done, write_results(outputs, record.sidecar(), force=job.force)


def _parameters(job: EnhanceJob) -> dict[str, object]:
    return {
        "VoxelMm": job.voxel_mm,
        "Mask": "given mask" if job.mask else job.masker,
        "NoiseSd": job.noise_sd,
        "Mirrored": job.n_mirrored,
        "TrustSd": job.trust_sd,
    }
