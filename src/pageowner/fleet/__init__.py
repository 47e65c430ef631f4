"""Many machines: small tables of owners in a shared folder or bucket, and questions about them."""
