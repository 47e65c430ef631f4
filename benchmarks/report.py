"""``pageowner report`` from cold start to printed table, beside the kernel's page_owner_sort."""

from __future__ import annotations

from common import BIN, PEER, folder, median, pairs, ratio, run, unpacked

ROUNDS = 5


def main() -> None:
    with folder() as place:
        dump = unpacked(place)
        rows = []
        for words in (["report", dump], ["report", dump, "--by", "subsystem"],
                      ["save", f"{place}/saved.parquet", dump]):
            mine, other = pairs([str(BIN / "pageowner"), *words],
                                [str(PEER), dump, f"{place}/sorted.txt"], ROUNDS)
            rows.append((" ".join(["pageowner", *words]).replace(place + "/", ""), mine, other))
        print("118 MB dump; medians of", ROUNDS, "pairs with the C page_owner_sort")
        print("| command | ours, s | C, s | times faster | ours, peak MiB | C, peak MiB |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, mine, other in rows:
            print(f"| `{name}` | {median([r.wall for r in mine]):.2f} |"
                  f" {median([r.wall for r in other]):.2f} | {ratio(mine, other):.1f} |"
                  f" {median([r.peak for r in mine]) / 2**20:.0f} |"
                  f" {median([r.peak for r in other]) / 2**20:.0f} |")
        helps = [run([str(BIN / "pageowner"), "--help"]).cpu for _ in range(ROUNDS)]
        print(f"\n`pageowner --help`: {median(helps):.3f} s of CPU time")


if __name__ == "__main__":
    main()
