"""Denoisers of magnitude images: trained, to be trained, and classical."""
