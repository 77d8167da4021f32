"""A protocol that meets a real scan."""
