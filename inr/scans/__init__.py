"""The data of a fit: one scan, or several with poses and contrasts; parts that are held out."""
