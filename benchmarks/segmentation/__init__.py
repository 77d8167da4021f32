"""Claims of the segmentation."""
