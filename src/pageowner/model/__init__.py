"""What every part speaks of: the snapshot, its columns, what is known of its source."""
