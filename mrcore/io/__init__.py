"""Files: images, tissue maps, sidecars, and writing each whole or not at all."""
