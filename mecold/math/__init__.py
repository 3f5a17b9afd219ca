"""Pure tensor functions: losses, metrics, ridge regressions."""
