"""mrkit: unsupervised physics models for MRI."""
