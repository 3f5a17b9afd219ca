"""Doors to what a shop wants beside recommendations, a file for each task."""
