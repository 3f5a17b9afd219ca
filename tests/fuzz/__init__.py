"""Drawn calls of the whole public surface."""
