"""``pageowner report`` from cold start to printed table, beside the kernel's page_owner_sort."""

from __future__ import annotations

from common import BIN, beside_peer, folder, median, run, unpacked

ROUNDS = 5


def main() -> None:
    with folder() as place:
        dump = unpacked(place)
        beside_peer([["report", dump], ["report", dump, "--by", "subsystem"],
                     ["save", f"{place}/saved.parquet", dump]], dump, place, ROUNDS)
        helps = [run([str(BIN / "pageowner"), "--help"]).cpu for _ in range(ROUNDS)]
        print(f"\n`pageowner --help`: {median(helps):.3f} s of CPU time")


if __name__ == "__main__":
    main()
