"""``pageowner frag`` from cold start to printed answer, beside the kernel's page_owner_sort."""

from __future__ import annotations

from common import beside_peer, folder, unpacked


def main() -> None:
    with folder() as place:
        dump = unpacked(place)
        beside_peer([["frag", dump], ["frag", dump, "--order", "9", "--want", "50"],
                     ["frag", dump, "--order", "9", "--want", "50", "--by", "stack"]],
                    dump, place)


if __name__ == "__main__":
    main()
