"""Cold-start evaluation: protocol, systems, metrics, significance, report. See `mecold.evaluation.run.evaluate`."""
