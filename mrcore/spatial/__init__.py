"""Resampling, registration and cropping, in world millimetres."""
