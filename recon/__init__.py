"""Magnetic resonance fingerprinting: from a pulse sequence to dictionaries, subspaces and matching."""
