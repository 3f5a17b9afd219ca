"""The caller's data: frames, items, logs, and histories as padded tensors."""
