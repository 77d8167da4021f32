"""What an image may be believed: checks of any output against its scan, and of a network against planted lesions."""
