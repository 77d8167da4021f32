"""The verb `enhance`."""
