"""The item space: channels by name, neighbour lists, search."""
