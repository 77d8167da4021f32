"""Reconstruction methods, from samples to components and maps."""
