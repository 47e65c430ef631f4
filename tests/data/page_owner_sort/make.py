"""Make the expected outputs with the kernel's tool: make.py $(scripts/peers)."""

from __future__ import annotations

import hashlib
import json
import lzma
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OPTIONS = [
    "",
    "-a",
    "-m",
    "-n",
    "-p",
    "-P",
    "-s",
    "-t",
    "--pid 1",
    "--pid=64,1,2",
    "--tgid=64,59",
    "--name dd",
    "--name=init,kthreadd,swapper",
    "--cull pid",
    "--cull=tgid",
    "--cull=name",
    "--cull=stacktrace",
    "--cull=allocator",
    "--cull=p,tg,n,st,ator",
    "--cull=st,ator -m",
    "--cull=n,p -s",
    "--cull=n --pid=1,64 -p",
    "--cull=st,tg --tgid 1,64 --name=dd,init -P",
    "--cull=ator -n",
    "--cull=p -a",
    "-a --pid 1",
    "-m --name dd,x",
]
EVIL = b"(evil), ts 1 ns), ts"


def records(dump: str) -> list[bytes]:
    """The records of a bundled dump, each with its empty line, but for those of the evil task."""
    folder = {"6.12": "6.12-fragmented", "6.1": "6.1-sample"}[dump]
    text = lzma.decompress((HERE.parent / folder / "page_owner.txt.xz").read_bytes())
    return [record + b"\n\n" for record in text[:-2].split(b"\n\n") if EVIL not in record]


def small(dump: str) -> bytes:
    """A selection of a dump."""
    return b"".join(records(dump)[:: {"6.12": 150, "6.1": 8}[dump]])


def main() -> None:
    """Run the tool on everything."""
    tool = sys.argv[1]
    hashes: dict[str, dict[str, str]] = {}
    outputs: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "in"), Path(name, "out")
        for dump in ("6.12", "6.1"):
            for text, store in ((b"".join(records(dump)), hashes), (small(dump), outputs)):
                source.write_bytes(text)
                for options in OPTIONS:
                    command = [tool, *options.split(), str(source), str(target)]
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                    made = target.read_bytes()
                    store.setdefault(dump, {})[options] = (
                        made.decode("latin-1") if store is outputs
                        else hashlib.sha256(made).hexdigest()
                    )
    (HERE / "sha256.json").write_text(json.dumps(hashes, indent=1) + "\n")
    packed = lzma.compress(json.dumps(outputs).encode(), preset=9 | lzma.PRESET_EXTREME)
    (HERE / "small.json.xz").write_bytes(packed)


if __name__ == "__main__":
    main()
