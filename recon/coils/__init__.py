"""Coil sensitivities and channels."""
