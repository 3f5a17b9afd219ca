"""Lists to numbers, tables, pictures and a page."""
