"""Which part of the package may import which: a question that slips into what reads memory, or a
file opened by what only counts, shows here."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pageowner

HOUSE = Path(pageowner.__file__).parent
MODULES = {".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__"): path
           for path in sorted(HOUSE.rglob("*.py")) if path != HOUSE / "__init__.py"}

FOR_ALL = {"errors", "report.text"}
"""How a command ends badly, and how numbers and hostile names are written."""

MAY_IMPORT = {
    "errors": set(),
    "kernel": set(),
    "system": {"kernel"},
    "model": {"kernel", "system"},
    "analysis": {"kernel", "system", "model"},
    "storage": {"kernel", "system", "model"},
    "fleet": {"kernel", "system", "model", "analysis", "storage"},
    "kernel_memory": {"kernel", "system", "model"},
    "tracker": {"kernel", "kernel_memory", "system", "model", "storage"},
    "vmcore": {"kernel", "kernel_memory", "system", "model", "tracker"},
    "sources": {"kernel", "kernel_memory", "system", "model", "storage", "tracker", "vmcore"},
    "report": {"kernel", "model", "analysis", "fleet"},
    "page_owner_sort": {"kernel", "system", "storage", "start"},
}
"""Parts by what else of ours they may import, inside functions and for types too; a part without a
line here joins the others."""

SHORTCUTS = {("model.snapshot", "analysis.filters"), ("model.snapshot", "analysis.select"),
             ("model.snapshot", "analysis.owners"), ("model.snapshot", "storage.parquet"),
             ("model.snapshot", "storage.whole_file"),
             ("model.snapshot", "sources.page_owner_text"),
             ("model.snapshot", "sources.page_owner_stacks")}
"""What methods of `Snapshot` hand over to, so that `pageowner.read(file).report()` can be said."""

@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def imports(module: str, at_start: bool = False, types: bool = True) -> Iterator[str]:
    """What a module imports, by its whole name; ``at_start``: as it is imported itself; ``types``:
    also for type checkers."""
    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if at_start and isinstance(child, ast.FunctionDef | ast.Lambda):
                continue
            if (at_start or not types) and (
                    isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.module, f"{module}: whole names, not relative ones"
                for alias in child.names:
                    inner = f"{child.module}.{alias.name}"
                    yield inner if inner.removeprefix("pageowner.") in MODULES else child.module
            yield from visit(child)
    return visit(tree(module))


@cache
def ours(module: str, at_start: bool = False, types: bool = True) -> set[str]:
    return {name.removeprefix("pageowner.") for name in imports(module, at_start, types)
            if name.startswith("pageowner.")}


def part(module: str) -> str:
    return module.partition(".")[0]


def asks_this_machine(module: str) -> bool:
    """Whether a module calls what reads files of /proc; a report may read its own templates."""
    asks = {"running", "pageflags.read", "procpages.read", "kallsyms.load", "zones.read_text"}
    if part(module) == "analysis":
        asks |= {"open", "read_text", "read_bytes"}
    called = {ast.unparse(node.func) for node in ast.walk(tree(module))
              if isinstance(node, ast.Call)}
    return any(name in asks or name.rpartition(".")[2] in asks for name in called)


def breaches() -> Iterator[tuple[str, str]]:
    for module in MODULES:
        allowed = MAY_IMPORT.get(part(module))
        for other in ours(module) - FOR_ALL:
            if (module, other) in SHORTCUTS or part(module) == part(other):
                continue
            if allowed is None:
                if part(module) == "cli" and part(other) == "kernel":
                    yield module, other
            elif part(other) not in allowed and module != "report.text":
                yield module, other
        if part(module) in ("analysis", "report") and asks_this_machine(module):
            yield module, "/proc"


def test_no_part_imports_what_is_above_it():
    assert set(breaches()) == set()


def test_no_module_leads_back_to_itself():
    """Imports inside functions count, but for shortcuts and the beginnings of commands."""
    graphlib.TopologicalSorter({module: {other for other in ours(module, types=False)
                                         if (module, other) not in SHORTCUTS and other != "start"}
                                for module in MODULES}).prepare()


def test_a_file_is_read_in_one_sitting():
    root = HOUSE.parents[1]
    long = {str(path.relative_to(root)): lines
            for folder in ("src", "tests", "benchmarks") for path in (root / folder).rglob("*.*")
            if path.suffix in (".py", ".c", ".h")
            and (lines := path.read_text().count("\n")) > 500}
    assert long == {}


def test_no_module_needs_itself_to_be_imported():
    graphlib.TopologicalSorter({module: ours(module, at_start=True)
                                for module in MODULES}).prepare()


@pytest.mark.parametrize("module", [name for name in MODULES if part(name) == "page_owner_sort"])
def test_page_owner_sort_starts_with_the_standard_library_alone(module):
    reached, left = set(), [module]
    while left:
        reached.add(one := left.pop())
        left += [other for other in ours(one, at_start=True) if other not in reached]
    foreign = {name.partition(".")[0] for one in reached for name in imports(one, at_start=True)}
    assert foreign - {"pageowner"} <= sys.stdlib_module_names


def test_a_loop_variable_tells_what_it_is() -> None:
    """``one`` in ``for one in stacks`` says less than ``stack``."""
    unnamed = {module for module in MODULES
               for node in ast.walk(tree(module))
               if isinstance(node, ast.Name | ast.arg)
               and getattr(node, "id", getattr(node, "arg", "")) == "one"}
    assert unnamed == set()
