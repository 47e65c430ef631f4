"""Empty the DWARF sections of a 64-bit little-endian ELF object: leave_out_dwarf.py IN OUT.

clang makes BTF only together with DWARF; loading needs the first alone. Sections keep their
numbers, so nothing that refers to one changes; those of DWARF and their relocations have no bytes
left. The same input gives the same output.
"""

import struct
import sys

SECTION = struct.Struct("<IIQQQQIIQQ")
NOBITS = 8


def main() -> None:
    source, target = sys.argv[1:]
    with open(source, "rb") as file:
        elf = file.read()
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    count, names = struct.unpack_from("<HH", elf, 0x3C)
    sections = [list(SECTION.unpack_from(elf, table + i * SECTION.size)) for i in range(count)]
    text = sections[names][4]
    out = bytearray(elf[:64])
    for section in sections:
        at = text + section[0]
        name = elf[at : elf.index(b"\0", at)]
        begin, size, align = section[4], section[5], section[8]
        if name.startswith((b".debug_", b".rel.debug_")):
            size = 0
        out += bytes(-len(out) % max(align, 1))
        section[4], section[5] = len(out), size
        if section[1] not in (0, NOBITS):
            out += elf[begin : begin + size]
    out += bytes(-len(out) % 8)
    struct.pack_into("<Q", out, 0x28, len(out))
    for section in sections:
        out += SECTION.pack(*section)
    with open(target, "wb") as file:
        file.write(out)


main()
