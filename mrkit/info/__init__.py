"""The verb `info`: what an image file is, and why it may be unusable."""
