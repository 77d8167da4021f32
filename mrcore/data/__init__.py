"""Grids, images, tissue maps and acquisitions."""
