"""What is to be simulated: presets, Bloch contrasts, targets, and ranges to draw from."""
