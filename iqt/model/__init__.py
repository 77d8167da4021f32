"""The network: a residual U-Net on folded voxels, with attention over the whole block at its coarsest level."""
