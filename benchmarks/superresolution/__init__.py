"""Claims of super-resolution."""
