"""Signals over T1 and T2, and matching them."""
