"""Raw data, sequences and trajectories in files."""
