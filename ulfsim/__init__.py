"""From a high-field scan to realistic ultra-low-field scans: measure, calibrate, simulate."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
