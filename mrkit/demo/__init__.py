"""The verb `demo`: everything at once on a template brain."""
