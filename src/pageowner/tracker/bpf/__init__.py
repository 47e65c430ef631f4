"""The in-kernel half: C for BPF, and the object made of it."""
