"""One file a channel: what a log and the texts say, as sides of items."""
