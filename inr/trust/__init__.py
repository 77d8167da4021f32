"""How far a fit can be trusted: ensembles, null space, residuals."""
