"""What `on` needs: the BPF object, its hooks and what the running kernel has."""
