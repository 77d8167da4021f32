"""Figures by which images and tissue maps are compared."""
