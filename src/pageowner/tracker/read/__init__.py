"""The tracker's maps read back: records, stacks, tasks, and the accounts of all page frames."""
