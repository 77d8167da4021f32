"""The verb `train-denoiser`."""
