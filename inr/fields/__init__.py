"""Implicit neural representations: functions of a position in mm."""
