"""Cubes of heads, imaged on the fly by their own operator: what restoration networks train on."""
