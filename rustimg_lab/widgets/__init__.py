"""What a notebook shows: what the verbs of the face return, and what changes while one looks at it."""
