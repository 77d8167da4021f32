"""The verb `fidelity`: how close simulated scans are to real ones."""
