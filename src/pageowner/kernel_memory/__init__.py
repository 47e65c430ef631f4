"""Reading the kernel's structures out of its memory, live or in a dump, with no access of its own:
whoever has the memory hands it in as a `pageowner.kernel_memory.access.Memory`."""
