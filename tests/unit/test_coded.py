"""What is said of a million stacks at once is what is said of each."""

from __future__ import annotations

import lzma
import random
from pathlib import Path

import pyarrow as pa
import pytest

from pageowner.analysis import coded
from pageowner.analysis import subsystems as of_text
from pageowner.kernel.frames import frames
from pageowner.kernel.stack_roles import (
    ALLOCATORS,
    ENTRY,
    GENERIC,
    INTERRUPTS,
    LIBRARIES,
    THROUGH,
)
from pageowner.kernel.subsystems import LAST_RESORT, RULES

STACKS = Path(__file__).parent.parent / "data/stacks/6.18.txt.xz"


def _names(*patterns: str) -> list[str]:
    return [word.replace("*", "abc").replace("?", "a") for one in patterns for word in one.split()]


def _made_up(number: int, seed: int = 3) -> list[str]:
    """Stacks that begin with allocators and go on with whatever a rule names."""
    chance, made = random.Random(seed), []
    allocators = _names(*ALLOCATORS.values())
    others = [*_names(*(rule.patterns for rule in (*RULES, *LAST_RESORT)), *ALLOCATORS.values(),
                      LIBRARIES, INTERRUPTS, ENTRY, GENERIC, *[THROUGH] * 9),
              *(f"own_{n}" for n in range(9)), *["0xffffffffc0123456"] * 40]
    modules = ["mod0", "mod1", "ttm", "bpf", *_names(*(rule.modules for rule in RULES),
                                                     *(rule.whole for rule in RULES))]
    for _ in range(number):
        chain = chance.choices(allocators, k=chance.randrange(4))
        chain += chance.choices(others, k=chance.randrange(7))
        chain += chance.choice([[], [], ["x64_sys_call"], ["entry_SYSCALL_64_after_hwframe"]])
        if chance.random() < 0.05:
            chain = ["0xffffffffc0123456", "0xffffffff81000000"]
        lines = [name if name.startswith("0x") else f"{name}+0x1/0x9" + (
            f" [{chance.choice(modules)}]" if chance.random() < 0.1 else "") for name in chain]
        if chance.random() < 0.1:
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(["", "  "]))
        made.append("\n".join(lines))
    return made


@pytest.mark.parametrize("number", [0, 5, 300, 5000])
def test_each_is_answered_as_alone(number: int) -> None:
    real = lzma.decompress(STACKS.read_bytes()).decode().split("\n\n") if number else []
    texts: list[str | None] = [*dict.fromkeys([*real[:number], *_made_up(number), "", "\n", "x"])]
    texts.insert(len(texts) // 2, None)
    stacks = pa.array(texts, pa.string())
    for many, alone in ((coded.subsystems, of_text.subsystem),
                        (coded.modules, of_text.module_of),
                        (coded.distinctive_frames, of_text.distinctive_frame),
                        (coded.allocators, of_text.allocator_of)):
        assert coded.of_stacks(many, stacks).to_pylist() == [
            None if text is None else alone(text) for text in texts]
        assert coded.of_stacks(many, stacks.slice(1, 2)).to_pylist() == [
            None if text is None else alone(text) for text in texts[1:3]]
    whole = coded.coded(stacks)
    for found, alone in ((whole, frames), (coded.functions(whole), of_text.functions)):
        assert [[found.frames[code] for code in found.codes[first:end]]
                for first, end in zip(found.first, found.end, strict=True)] == [
                    [] if text is None else alone(text) for text in texts]


def test_nothing_is_known_of_nulls() -> None:
    for stacks in (pa.nulls(3, pa.string()), pa.array([], pa.string())):
        assert coded.of_stacks(coded.subsystems, stacks).to_pylist() == stacks.to_pylist()
        assert coded.of_stacks(coded.modules, stacks).to_pylist() == stacks.to_pylist()
        assert coded.of_stacks(coded.distinctive_frames, stacks).to_pylist() == stacks.to_pylist()
