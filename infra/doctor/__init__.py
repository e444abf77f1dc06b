"""``holdfire doctor``: what is found, what is wrong with it, and what to do about it."""
