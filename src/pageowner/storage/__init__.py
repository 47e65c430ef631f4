"""Snapshots and series of them on disk."""
