"""Brain and tissues of an image, and scans in folders."""
