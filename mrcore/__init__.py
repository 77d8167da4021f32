"""Physics that every mrkit package shares: grids, operators, the acquisition model, noise, solvers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
