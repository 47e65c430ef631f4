"""``pageowner frag`` from cold start to printed answer, beside the kernel's page_owner_sort."""

from __future__ import annotations

from common import BIN, PEER, folder, median, pairs, ratio, unpacked

ROUNDS = 5


def main() -> None:
    with folder() as place:
        dump = unpacked(place)
        print("118 MB dump; medians of", ROUNDS, "pairs with the C page_owner_sort")
        print("| command | ours, s | C, s | times faster | ours, peak MiB | C, peak MiB |")
        print("| --- | --- | --- | --- | --- | --- |")
        for words in (["frag", dump], ["frag", dump, "--order", "9", "--want", "50"],
                      ["frag", dump, "--order", "9", "--want", "50", "--by", "stack"]):
            mine, other = pairs([str(BIN / "pageowner"), *words],
                                [str(PEER), dump, f"{place}/sorted.txt"], ROUNDS)
            name = " ".join(["pageowner", *words]).replace(place + "/", "")
            print(f"| `{name}` | {median([r.wall for r in mine]):.2f} |"
                  f" {median([r.wall for r in other]):.2f} | {ratio(mine, other):.1f} |"
                  f" {median([r.peak for r in mine]) / 2**20:.0f} |"
                  f" {median([r.peak for r in other]) / 2**20:.0f} |")


if __name__ == "__main__":
    main()
