"""What adapts to a user."""
