"""Image quality transfer: networks that restore one low-field scan, tethered to it by the forward model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
