"""Where samples lie in k-space, and how densely."""
