"""How `page_owner_sort` works: options, blocks, tally, groups, output; the standard library only.

A dump is read in chunks (`reading`), its blocks are counted by what they have in common (`tally`,
by the rules of `blocks`) on several processors (`workers`), and what was counted is culled, sorted
(`groups`) and written (`output`).
"""
