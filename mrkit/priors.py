"""Priors that come with mrkit."""

from __future__ import annotations

from dataclasses import replace

import torch

from inr.prior import PlugAndPlay
from mrcore.errors import BadInputError
from mrcore.nets_files import Denoiser, has_bf16, shipped_denoiser


def denoiser_prior(denoiser: Denoiser | None = None, device: str | torch.device = "cpu") -> PlugAndPlay:
    """Return the plug-and-play prior of a 3-D `denoiser`, by default the shipped one.

    It computes on `device`, wherever images are, and in bfloat16 where the device has it.

    Raises:
        BadInputError: a denoiser of slices; a volume needs one of three dimensions.
    """
    chosen = denoiser or shipped_denoiser(3)
    if chosen.net.settings.n_dims != 3:
        raise BadInputError(
            f"the prior of a volume needs a 3-D denoiser, got a {chosen.net.settings.n_dims}-D one; "
            "train it with `mrkit train-denoiser --dims 3`"
        )
    return PlugAndPlay(replace(chosen.to(device), bf16=has_bf16(device)))
