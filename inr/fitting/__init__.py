"""Fitting a field to scans: objective, descent, prior, tissues, and the choice of weights."""
