"""The comparison of all methods, and the pages about them."""
