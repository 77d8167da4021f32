"""What all benchmarks share: brains, kept rows, sources, results."""
