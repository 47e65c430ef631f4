"""One call for each verb: what ``import pageowner`` offers and the command line sits on.

A call takes words as the command line has them (``"10m"``, ``"1MiB"``, ``"comm,order"``), and for a
source what `pageowner.read` takes or a `Snapshot`; it returns an Arrow table or a small dataclass.
It raises `PageownerError`, or `UsageError` for words that are wrong.
"""
