"""Per-subject super-resolution: implicit neural representations and baselines through one forward model."""
