"""What a shop asks beside ranking: one door per task."""
