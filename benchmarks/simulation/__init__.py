"""Claims of the simulator."""
