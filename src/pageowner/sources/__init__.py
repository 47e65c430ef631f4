"""Texts and state that people have, read: dumps of page owner and how they are opened."""
