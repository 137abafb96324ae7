"""The rules of CONTRIBUTING.md and docs/architecture.md that no linter checks: sizes, names, repetition, folders."""

from __future__ import annotations

import ast
import builtins
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise, takewhile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "reinception"
FILES = sorted(PACKAGE.rglob("*.py"))

FILES_AT_THE_TOP = 10
LINES_A_FILE = 400
LINES_A_FUNCTION = 60
PARAMETERS = 7
REPEATED_LINES, REPEATED_STATEMENTS = 8, 4  # a call may be long for the texts in it; that is no logic

# Each exception is `place: reason`; a place that no longer needs its exception fails the test, too.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
WIDE_FUNCTIONS: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions() -> Iterator[tuple[str, Function]]:
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, Function):
                yield f"{place(path)}: {node.name}", node


def num_lines(function: Function) -> int:
    """From `def` to the last line, the docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def num_parameters(function: Function) -> int:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def over(limit: int, sizes: dict[str, int], exceptions: dict[str, str]) -> list[str]:
    """What is over the limit without a reason, and reasons that are no longer needed."""
    large = {where: size for where, size in sizes.items() if size > limit}
    unexplained = [f"{where}: {size}, at most {limit}" for where, size in large.items() if where not in exceptions]
    return unexplained + [f"{where}: the exception is not needed" for where in exceptions if where not in large]


def test_few_files_stand_at_the_top_of_the_package() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= FILES_AT_THE_TOP


def test_files_are_short() -> None:
    sizes = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not over(LINES_A_FILE, sizes, LONG_FILES)


def test_functions_are_short() -> None:
    assert not over(LINES_A_FUNCTION, {where: num_lines(node) for where, node in functions()}, LONG_FUNCTIONS)


def test_functions_take_few_parameters() -> None:
    assert not over(PARAMETERS, {where: num_parameters(node) for where, node in functions()}, WIDE_FUNCTIONS)


def test_a_module_name_is_used_once() -> None:
    """A file of `cli` is named after its verb, so it may bear the name of what the verb does."""
    named = [path for path in FILES if path.stem not in ("__init__", "__main__") and path.parent.name != "cli"]
    stems = Counter(path.stem for path in named)
    assert not [place(path) for path in named if stems[path.stem] > 1]


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [place(path) for path in FILES if path.stem in ("utils", "util", "common", "core", "helpers", "misc")]


def test_a_public_class_name_is_used_once() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(place(path))
    assert not {name: places for name, places in homes.items() if len(places) > 1}


def test_only_distributed_imports_the_process_group() -> None:
    def names(node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            return [f"{node.module}.{alias.name}" for alias in node.names]
        return []

    users = {
        place(path)
        for path in FILES
        for node in ast.walk(tree_of(path))
        if any(name.startswith("torch.distributed") for name in names(node))
    }
    assert users <= {"distributed.py"}


def test_every_file_begins_with_one_sentence() -> None:
    """The first paragraph of a file's docstring is one line."""
    said = {place(path): (ast.get_docstring(tree_of(path)) or "").split("\n\n")[0].strip() for path in FILES}
    assert not [where for where, line in said.items() if not line.endswith((".", "?")) or "\n" in line]


# A word of our own where the field has one: image, fix, cannot.
PRIVATE_WORDS = re.compile(
    r"(?<![a-z])((?<!make )pictures?|photographs?|mend(s|ed|ing)?|can not)(?![a-z])", re.IGNORECASE
)


def test_names_and_prose_use_the_words_of_the_field() -> None:
    pages = [*FILES, *PACKAGE.rglob("*.j2"), *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    lines = [(page, line) for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    assert not [f"{page.relative_to(ROOT)}: {line}" for page, line in lines if PRIVATE_WORDS.search(line)]


# -- the tree in docs/architecture.md ---------------------------------------------------------------------------------


def drawn() -> dict[str, str]:
    """Folders (`name/`) and files under src/reinception as docs/architecture.md draws them, each with its sentence."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"^src/reinception/\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert block is not None, "docs/architecture.md has no tree of src/reinception/"
    found: dict[str, str] = {}
    parents: list[str] = []
    for line in block[1].splitlines():
        indent, name, said = re.fullmatch(r"( +)(\S+) +(\S.*)", line).groups()  # pyrefly: ignore[missing-attribute]
        depth = len(indent) // 2 - 1
        parents = [*parents[:depth], name]
        found["".join(parents)] = said
    return found


def test_the_tree_in_the_document_is_the_tree_on_disk() -> None:
    """Every folder and every file at the top of the package, none else."""
    folders = {path.parent for path in FILES} - {PACKAGE}
    files = {path.name for path in PACKAGE.glob("*.py")}
    assert set(drawn()) == files | {f"{place(folder)}/" for folder in folders}


def test_each_package_in_the_tree_has_a_sentence() -> None:
    assert all(len(said) > len("a few words") for said in drawn().values())


def test_the_layers_in_the_document_are_those_of_the_import_rules() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```layers\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
    assert block.splitlines() == [layer.replace("reinception.", "") for layer in rules["layers"]]


# -- the same logic twice ---------------------------------------------------------------------------------------------

Statement = tuple[str, int]
"""What a statement does, whatever its variables are called; how many lines it takes without what is nested in it."""


class Anonymous(ast.NodeTransformer):
    """Replaces the names of local variables, and inside functions also numbers and texts."""

    def __init__(self, tree: ast.Module) -> None:
        self.known, self.depth = set(dir(builtins)), 0
        for node in tree.body:
            names = [alias.asname or alias.name for alias in getattr(node, "names", [])]
            self.known |= {*names, getattr(node, "name", "")}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = node.id if node.id in self.known else "_"
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg = "_"
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1
        node.name = "_"
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if self.depth and isinstance(node.value, str | int | float):
            node.value = "_"
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:
        return ast.copy_location(ast.Constant(value="_"), node)


def statements(source: str) -> list[Statement]:
    """The statements of a file in order, without imports, docstrings and fields that are only declared."""
    tree = ast.parse(source)
    nodes: list[tuple[ast.stmt | ast.ExceptHandler, int]] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            is_text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            is_field = isinstance(child, ast.AnnAssign) and isinstance(node, ast.ClassDef)
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                if not (is_text or is_field or isinstance(child, ast.Import | ast.ImportFrom | ast.match_case)):
                    nodes.append((child, child.lineno))
                visit(child)

    visit(Anonymous(tree).visit(tree))
    found = []
    for (node, start), (_, following) in pairwise([*nodes, (ast.Pass(), len(source.splitlines()) + 1)]):
        said = ast.unparse(node).splitlines()
        inner = isinstance(getattr(node, "body", None), list)  # of a compound statement only what stands above its body
        text = next((line for line in said if not line.startswith("@")), "") if inner else "\n".join(said)
        found.append((text, min(following, (node.end_lineno or start) + 1) - start))
    return found


def repetitions(files: Mapping[str, list[Statement]]) -> list[str]:
    """Pairs of places where equal statements follow each other for eight lines or more on both sides."""
    homes: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, lines in files.items():
        for index, (text, _) in enumerate(lines):
            homes[text].append((name, index))
    found = []
    for (left, i), (right, j) in (pair for places in homes.values() for pair in combinations(places, 2)):
        a, b = files[left], files[right]
        if i and j and a[i - 1][0] == b[j - 1][0]:
            continue  # the run began before
        run = list(takewhile(lambda two: two[0][0] == two[1][0], zip(a[i:], b[j:], strict=False)))
        run = run[: j - i] if left == right else run
        lines = min(sum(two[side][1] for two in run) for side in (0, 1))
        if len(run) >= REPEATED_STATEMENTS and lines >= REPEATED_LINES:
            found.append(f"{left} ~ {right}: " + " / ".join(text for (text, _), _ in run))
    return found


def test_no_two_places_share_the_same_logic() -> None:
    assert not repetitions({place(path): statements(path.read_text(encoding="utf-8")) for path in FILES})


def test_the_same_logic_under_other_names_is_found() -> None:
    one = "def f(x):\n" + "".join(f"    x = open(x, {n})\n" for n in range(7))
    other = "def g(y):\n" + "".join(f"    y = open(y, '{n}')\n" for n in range(7))
    assert repetitions({"a.py": statements("z = 1\n" + one), "b.py": statements(other)})
    assert not repetitions({"a.py": statements(one), "b.py": statements(other.replace("open", "print"))})
    assert not repetitions({"a.py": statements(one), "b.py": statements("\n".join(other.splitlines()[:-1]))})
