"""The verb `measure`: contrast, noise and sharpness of a scan."""
