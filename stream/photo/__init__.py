"""What a photo says of itself, its pixels, what can be seen in it, and how findings are drawn on it."""
