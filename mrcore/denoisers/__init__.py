"""Denoisers of magnitude images: trained, to be trained, and classical."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
