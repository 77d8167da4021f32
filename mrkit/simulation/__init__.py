"""The verb `simulate`: a high-field scan in, an ultra-low-field one out."""
