"""Brain masks and tissue maps of images."""
