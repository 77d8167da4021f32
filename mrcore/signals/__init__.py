"""Signals of tissues and of pulse sequences."""
