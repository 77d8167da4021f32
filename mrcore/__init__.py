"""Physics that every mrkit package shares: grids, operators, the acquisition model, noise, solvers."""
