"""mrkit: unsupervised physics models for MRI.

`load` an image, `simulate_ulf` a 64 mT scan of it, `superresolve` one scan or several, `measure` them, `quantify` the
raw data of a fingerprint (`load_raw`), and `save` what came out. `mrkit --help` is the command line. Names are imported
when first used, so that `import mrkit` is fast.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
