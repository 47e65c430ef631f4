"""Who has a page now, by what the kernel's own structures say of it."""
