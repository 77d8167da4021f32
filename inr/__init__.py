"""Per-subject super-resolution: implicit neural representations and baselines through one forward model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
