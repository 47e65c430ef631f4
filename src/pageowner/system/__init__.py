"""This process and its files: memory, children, paths others can change."""
