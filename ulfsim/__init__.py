"""From a high-field scan to realistic ultra-low-field scans: measure, calibrate, simulate."""
