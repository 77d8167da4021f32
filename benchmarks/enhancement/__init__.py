"""The benchmark of image quality transfer."""
