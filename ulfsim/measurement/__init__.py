"""What a scan shows: contrast, noise, sharpness, and how like another scan it is."""
