"""The outer loop: episodes, cross-fitting, training, calibration."""
