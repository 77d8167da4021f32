"""What is simulated from: a high-field image, its tissues, and what each tissue adds to a voxel."""
