"""Images of a kernel's memory: vmcores, and what the tracker left in them."""
