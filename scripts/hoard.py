"""Fill pipes until a number of MiB is taken, say so, and hold them until stdin ends.

For scripts/demo: memory of the kernel, which no process's own figures show. Named ``hoard``.
"""

import fcntl
import os
import sys

MIB = 1 << 20
F_SETPIPE_SZ = 1031

with open("/proc/self/comm", "w") as comm:
    comm.write("hoard")
for _ in range(int(sys.argv[1])):
    _, end = os.pipe()
    fcntl.fcntl(end, F_SETPIPE_SZ, MIB)
    os.write(end, bytes(MIB))
print("ready", flush=True)
sys.stdin.read()
