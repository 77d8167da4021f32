"""Claims of quantification from fingerprints."""
