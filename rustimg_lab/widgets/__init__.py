"""What a notebook shows that changes while one looks at it."""
