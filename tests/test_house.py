"""The house rules of the design, read off the sources: who may import whom, and what nobody may do."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOO_LONG = 350
WITH_TORCH = "pipeline.cache.torch_data"  # imported only inside functions
STAGE_ONE = {"transformers", "peft", "bitsandbytes"}
MAY_IMPORT = {
    "tasks": set(),
    "cache": set(),
    "results": set(),
    "heads": {"cache", "tasks", "results"},
    "extract": {"tasks", "backbone", "cache"},
    "adapters": {"tasks", "backbone", "cache", "results"},
    "housekeeping": {"cache", "results"},
    "doctor": {"tasks", "backbone", "cache", "extract", "housekeeping"},
    "predicting": {"tasks", "backbone", "cache", "extract", "adapters", "heads", "results"},
    "choosing": {"tasks", "cache", "extract", "heads", "results"},
}


@dataclass(frozen=True)
class Import:
    """One import in one module.

    Args:
        module: dotted name of the module that imports.
        target: what it imports: `torch.nn`, `pipeline.cache.identity`.
        line: where.
        function: the innermost function that it stands in, or None.
        typing_only: whether it stands under `if TYPE_CHECKING`.
    """

    module: str
    target: str
    line: int
    function: str | None = None
    typing_only: bool = False

    @property
    def room(self) -> str:
        return _room(self.module)

    @property
    def target_room(self) -> str | None:
        return _room(self.target) if self.target.split(".")[0] == "pipeline" else None

    @property
    def package(self) -> str:
        return self.target.split(".")[0]

    @property
    def at_import_time(self) -> bool:
        return self.function is None and not self.typing_only

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def _room(module: str) -> str:
    """The folder that a module lies in; a module at the top is its own."""
    return [*module.split("."), ""][1]


class _Reader(ast.NodeVisitor):
    def __init__(self, module: str, package: str, known: set[str]) -> None:
        self.module, self.package, self.known = module, package, known
        self.function: str | None = None
        self.typing_only = False
        self.found: list[Import] = []

    def _add(self, target: str, line: int) -> None:
        self.found.append(Import(self.module, target, line, self.function, self.typing_only))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            start = self.package.split(".")[: len(self.package.split(".")) - node.level + 1]
            base = ".".join([*start, *filter(None, [node.module])])
        for alias in node.names:  # `from pipeline.tasks import hub` is an import of the module hub
            full = f"{base}.{alias.name}"
            self._add(full if full in self.known else base, node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        if name in ("__import__", "importlib.import_module", "import_module") and node.args:
            target = node.args[0]
            self._add(target.value if isinstance(target, ast.Constant) else "<computed>", node.lineno)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outer, self.function = self.function, node.name
        self.generic_visit(node)
        self.function = outer

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        outer = self.typing_only
        self.typing_only = outer or ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body:
            self.visit(statement)
        self.typing_only = outer
        for statement in node.orelse:
            self.visit(statement)


def _modules(root: Path) -> dict[str, Path]:
    """The modules of the package `pipeline` under `root`, by dotted name."""
    modules = {}
    for path in sorted((root / "pipeline").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def read_imports(root: Path) -> list[Import]:
    """Every import of the package, wherever it stands."""
    modules, found = _modules(root), []
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        reader = _Reader(module, package, set(modules))
        reader.visit(ast.parse(path.read_text("utf-8"), str(path)))
        found += reader.found
    return found


# --- the rules: each gives what breaks it ---


def stage_one_packages_outside_their_rooms(imports: Iterable[Import]) -> list[str]:
    return [str(i) for i in imports if i.room in ("tasks", "cache", "results", "heads") and i.package in STAGE_ONE]


def torch_in_cache_or_tasks(imports: Iterable[Import]) -> list[str]:
    def known(i: Import) -> bool:
        return (i.package == "torch" and i.module != WITH_TORCH) or (i.target == WITH_TORCH and i.at_import_time)

    return [str(i) for i in imports if i.room in ("cache", "tasks") and known(i) and not i.typing_only]


def rooms_imported_against_the_rules(imports: Iterable[Import], rooms: set[str]) -> list[str]:
    return [
        str(i)
        for i in imports
        if i.room in MAY_IMPORT and i.target_room in rooms - {i.room} and i.target_room not in MAY_IMPORT[i.room]
    ]


def more_of_tasks_than_specs_in_heads(imports: Iterable[Import]) -> list[str]:
    return [
        str(i) for i in imports if i.room == "heads" and i.target_room == "tasks" and i.target != "pipeline.tasks.spec"
    ]


def importers_of_h5py(imports: Iterable[Import]) -> set[str]:
    return {i.module for i in imports if i.package == "h5py"}


def importers_of_cli(imports: Iterable[Import]) -> list[str]:
    return [str(i) for i in imports if i.target_room == "cli" and i.module != "pipeline.__main__"]


def cycle(edges: Mapping[str, set[str]]) -> list[str]:
    """One cycle of a graph, or nothing."""
    done: set[str] = set()

    def follow(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for target in sorted(edges.get(node, ())):
            if found := follow(target, [*trail, node]):
                return found
        done.add(node)
        return []

    for start in sorted(edges):
        if found := follow(start, []):
            return found
    return []


def declared_packages() -> tuple[set[str], set[str]]:
    """What may be imported with the base alone, and with every extra that people install (not `dev`)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [each for name, group in project["optional-dependencies"].items() if name != "dev" for each in group]
    base = _importable(project["dependencies"])
    return base, base | _importable(extras)


def _importable(requirements: Iterable[str]) -> set[str]:
    wanted = {re.split(r"[\[<>=~! ]", each)[0].lower().replace("_", "-") for each in requirements}
    return {
        package
        for package, distributions in importlib.metadata.packages_distributions().items()
        if wanted & {name.lower().replace("_", "-") for name in distributions}
    }


WITH_EXTRAS = ("backbone", "extract", "adapters")
"""Rooms that stage one and the live path alone enter."""


def undeclared(imports: Iterable[Import], base: set[str], extras: set[str]) -> list[str]:
    """Imports of packages that pyproject.toml does not name: where the base alone must do, that it does not."""
    own = {"pipeline", *sys.stdlib_module_names}
    return [
        str(each)
        for each in imports
        if each.package not in own
        and each.target != "<computed>"
        and each.package not in (base if each.at_import_time and each.room not in WITH_EXTRAS else extras)
    ]


def cycle_of_modules(imports: Iterable[Import]) -> list[str]:
    """At import time; a module also runs the `__init__` of every folder on the way to what it imports."""
    edges: dict[str, set[str]] = {}
    for i in imports:
        if i.at_import_time and i.package == "pipeline":
            names = i.target.split(".")
            on_the_way = {".".join(names[:n]) for n in range(2, len(names) + 1)}
            own = {i.module[: len(folder)] for folder in on_the_way if i.module.startswith(f"{folder}.")}
            edges.setdefault(i.module, set()).update(on_the_way - own - ({i.module} if i.target != i.module else set()))
    return cycle(edges)


def cycle_of_rooms(imports: Iterable[Import], rooms: set[str]) -> list[str]:
    """Whatever the time: also inside functions and for type checkers."""
    edges: dict[str, set[str]] = {}
    for i in imports:
        if i.room in rooms and i.target_room in rooms and i.room != i.target_room:
            edges.setdefault(i.room, set()).add(i.target_room)
    return cycle(edges)


def long_or_shapeless_modules(root: Path) -> list[str]:
    shapeless = {"utils", "util", "helpers", "helper", "common", "misc"}
    return [
        str(path)
        for path in _modules(root).values()
        if path.stem in shapeless
        or path.parent.name in shapeless
        or len(path.read_text("utf-8").splitlines()) > TOO_LONG
    ]


def same_names(tests: Path) -> list[str]:
    """Modules of tests that pytest, which knows them by their last name, would take for one another."""
    by_name: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("*.py")):
        by_name.setdefault(path.name, []).append(path.relative_to(tests).as_posix())
    return [", ".join(paths) for name, paths in by_name.items() if len(paths) > 1 and name != "conftest.py"]


def unsafe_calls(root: Path) -> list[str]:
    """Unpickling, evaluating, remote code, a shell."""
    unsafe_packages = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    starts = {"run", "Popen", "call", "check_call", "check_output"}
    unsafe_names = {"eval", "exec", "compile", "os.system", "os.popen"}
    found = [str(i) for i in read_imports(root) if i.package in unsafe_packages or i.target == "<computed>"]
    for module, path in _modules(root).items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            unsafe = (
                name in unsafe_names
                or given.get("trust_remote_code", "False") != "False"
                or (name.split(".")[-1] in starts and given.get("shell", "False") != "False")
                or given.get("allow_pickle", "False") != "False"
                or (name == "torch.load" and given.get("weights_only") != "True")
                or (name == "skops.io.load" and given.get("trusted") not in ("[]", "vetted", "None", None))
                or (name in ("yaml.load", "yaml.unsafe_load"))
            )
            if unsafe:
                found.append(f"{module}:{node.lineno} calls {ast.unparse(node)[:60]}")
    return found


# --- the sources keep them ---


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return read_imports(ROOT)


@pytest.fixture(scope="module")
def rooms() -> set[str]:
    return {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}


def test_the_reader_sees_the_imports_of_the_sources(imports, rooms):
    assert {"tasks", "backbone", "cache", "extract", "heads", "results"} <= rooms
    seen = {(i.module, i.target, i.function) for i in imports}
    assert ("pipeline.stage_commands", "pipeline.heads.train", "heads") in seen
    assert ("pipeline.heads.train", "pipeline.cache", None) in seen
    assert any(i.typing_only and i.target == "torch" for i in imports)
    assert len({i.module for i in imports}) > 30


def test_stage_two_knows_nothing_of_transformers_peft_or_bitsandbytes(imports):
    assert stage_one_packages_outside_their_rooms(imports) == []


def test_cache_and_tasks_know_nothing_of_torch(imports):
    assert torch_in_cache_or_tasks(imports) == []


def test_rooms_import_only_the_rooms_that_they_may(imports, rooms):
    assert rooms_imported_against_the_rules(imports, rooms) == []


def test_heads_take_only_the_specs_of_tasks(imports):
    assert more_of_tasks_than_specs_in_heads(imports) == []


def test_h5py_is_imported_in_one_module(imports):
    assert importers_of_h5py(imports) == {"pipeline.cache.shard"}


def test_what_a_room_imports_is_declared(imports):
    assert undeclared(imports, *declared_packages()) == []


def test_nothing_imports_the_command_line(imports):
    assert importers_of_cli(imports) == []


def test_no_modules_import_each_other(imports):
    assert cycle_of_modules(imports) == []


def test_no_rooms_import_each_other(imports, rooms):
    assert cycle_of_rooms(imports, rooms) == []


def test_no_module_is_long_or_called_after_nothing():
    assert long_or_shapeless_modules(ROOT) == []


def test_no_two_modules_of_the_tests_have_the_same_name():
    assert same_names(ROOT / "tests") == []


def test_nothing_stored_is_unpickled_or_evaluated_and_no_remote_code_runs():
    assert unsafe_calls(ROOT) == []


# --- and each rule finds what is planted ---


ROOMS = set(MAY_IMPORT) | {"backbone"}


@pytest.fixture
def plant(tmp_path: Path):
    """Lay out a package with the rooms' names, and modules with the given text."""

    def write(**texts: str) -> Path:
        for room in ROOMS:
            (tmp_path / "pipeline" / room).mkdir(parents=True)
            (tmp_path / "pipeline" / room / "__init__.py").write_text("")
        (tmp_path / "pipeline" / "__init__.py").write_text("")
        for name, text in texts.items():
            path = tmp_path / "pipeline" / (name.replace("__", "/") + ".py")
            path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "import transformers",
        "from peft.tuners import lora",
        "def f():\n    from bitsandbytes import nn",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import transformers",
        "try:\n    import transformers.models\nexcept ImportError:\n    pass",
        "import importlib\nimportlib.import_module('peft')",
        "class A:\n    async def f(self):\n        import bitsandbytes",
    ],
)
@pytest.mark.parametrize("room", ["tasks", "cache", "results", "heads"])
def test_a_planted_package_of_stage_one_is_found(plant, text, room):
    imports = read_imports(plant(**{f"{room}__m": text, "backbone__m": text}))
    assert [line.split(":")[0] for line in stage_one_packages_outside_their_rooms(imports)] == [f"pipeline.{room}.m"]


def test_planted_torch_is_found(plant):
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import torch.nn\n"
    feature_set = "def to_torch():\n    from pipeline.cache.torch_data import x\n"
    imports = read_imports(
        plant(
            cache__feature_set=feature_set,
            cache__torch_data="import torch",
            cache__m=typing,
            cache__n="from pipeline.cache.torch_data import x\n" + feature_set,
            tasks__m="def to_torch():\n    import torch",
            heads__m="import torch",
        )
    )
    assert torch_in_cache_or_tasks(imports) == [
        "pipeline.cache.m:5 imports torch.nn",
        "pipeline.cache.n:1 imports pipeline.cache.torch_data",
        "pipeline.tasks.m:2 imports torch",
    ]


@pytest.mark.parametrize(
    ("room", "text", "forbidden"),
    [
        ("heads", "from pipeline.backbone import m", True),
        ("heads", "def f():\n    import pipeline.extract.m", True),
        ("heads", "from ..adapters import m", True),
        ("heads", "from pipeline import adapters", True),
        ("heads", "from pipeline.cache import m", False),
        ("heads", "from pipeline.errors import m", False),
        ("extract", "from pipeline.heads import m", True),
        ("extract", "from pipeline.results import m", True),
        ("extract", "from pipeline.backbone import m", False),
        ("cache", "from pipeline.tasks import m", True),
        ("adapters", "from pipeline.extract import m", True),
        ("results", "from . import other", False),
    ],
)
def test_a_planted_import_of_a_room_is_judged(plant, room, text, forbidden):
    root = plant(**{f"{room}__m": text, "errors": ""})
    assert bool(rooms_imported_against_the_rules(read_imports(root), ROOMS)) == forbidden


def test_a_planted_reader_of_tasks_in_heads_is_found(plant):
    lines = [
        "from pipeline.tasks.spec import TaskSpec",
        "from pipeline.tasks import spec",
        "from pipeline.tasks.read import x",
        "from pipeline.tasks import glue",
    ]
    imports = read_imports(plant(heads__m="\n".join(lines), tasks__spec="", tasks__read="", tasks__glue=""))
    assert more_of_tasks_than_specs_in_heads(imports) == [
        "pipeline.heads.m:3 imports pipeline.tasks.read",
        "pipeline.heads.m:4 imports pipeline.tasks.glue",
    ]


def test_a_planted_import_that_nobody_declared_is_found(plant):
    text = "import xxhash\ndef f():\n    import peft\n    import flask"
    imports = read_imports(plant(cache__m=text, extract__m="import transformers\nimport yaml"))
    base, extras = {"numpy"}, {"numpy", "peft", "transformers"}
    found = [each.split(" imports ")[1] for each in undeclared(imports, base, extras)]
    assert sorted(found) == ["flask", "xxhash", "yaml"]
    assert undeclared(imports, {"xxhash"}, extras | {"flask", "yaml", "xxhash"}) == []


def test_planted_h5py_and_cli_are_found(plant):
    texts = {"cache__shard": "import h5py", "heads__m": "def f():\n    from h5py import h5d"}
    root = plant(**texts, cli="", results__m="from pipeline import cli")
    (root / "pipeline" / "__main__.py").write_text("from pipeline.cli import main")
    imports = read_imports(root)
    assert importers_of_h5py(imports) == {"pipeline.cache.shard", "pipeline.heads.m"}
    assert importers_of_cli(imports) == ["pipeline.results.m:1 imports pipeline.cli"]


def test_a_planted_cycle_of_modules_is_found(plant):
    root = plant(
        cache__a="from pipeline.cache.b import x", cache__b="import pipeline.cache.c", cache__c="from . import a"
    )
    assert cycle_of_modules(read_imports(root)) == [f"pipeline.cache.{name}" for name in "abca"]


def test_a_planted_cycle_through_a_folders_init_is_found(plant):
    root = plant(tasks__a="from pipeline.results.b import x", results__b="")
    assert cycle_of_modules(read_imports(root)) == []
    (root / "pipeline" / "results" / "__init__.py").write_text("from pipeline.tasks.a import y")
    assert cycle_of_modules(read_imports(root)) != []


def test_imports_inside_functions_make_no_cycle_of_modules_but_one_of_rooms(plant):
    root = plant(tasks__a="from pipeline.results.b import x", results__b="def f():\n    from pipeline.tasks.a import y")
    assert cycle_of_modules(read_imports(root)) == []
    assert cycle_of_rooms(read_imports(root), ROOMS) == ["results", "tasks", "results"]


@pytest.mark.parametrize("name", ["cache__utils", "heads__helpers", "common"])
def test_a_planted_shapeless_name_is_found(plant, name):
    assert len(long_or_shapeless_modules(plant(**{name: "", "heads__fit": ""}))) == 1


def test_a_planted_second_module_of_the_same_name_is_found(tmp_path):
    for path in (
        "cache/test_cut.py",
        "cache/conftest.py",
        "heads/conftest.py",
        "heads/test_cut.py",
        "heads/test_fit.py",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    assert same_names(tmp_path) == ["cache/test_cut.py, heads/test_cut.py"]


def test_a_planted_long_module_is_found(plant):
    root = plant(heads__m="x = 1\n" * (TOO_LONG + 1), heads__n="x = 1\n" * TOO_LONG)
    assert [Path(path).stem for path in long_or_shapeless_modules(root)] == ["m"]


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "eval('1')",
        "exec(text)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "subprocess.run(x, shell=True)",
        "os.system(x)",
        "np.load(x, allow_pickle=True)",
        "torch.load(x)",
        "skops.io.load(x, trusted=untrusted)",
        "import importlib\nimportlib.import_module(name)",
    ],
)
def test_a_planted_unsafe_call_is_found(plant, text):
    assert len(unsafe_calls(plant(heads__m=text))) == 1


def test_what_only_looks_unsafe_is_let_be(plant):
    text = "head.eval()\nmodel.compile()\nre.compile(x)\nf(trust_remote_code=False)\nskops.io.load(x, trusted=[])\n"
    assert unsafe_calls(plant(heads__m=text + "# eval(x), pickle, shell=True\n")) == []


# --- what a command loads ---

HEAVY = {"torch", "numpy", "sklearn", "scipy", "transformers", "h5py", "pyarrow", "datasets", "bitsandbytes", "peft"}


def _loaded_by(*arguments: str) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}, done


@pytest.mark.parametrize(
    "arguments", [["--help"], ["heads", "--help"], ["extract", "--help"], ["backbones", "--help"], ["--version"]]
)
def test_help_loads_nothing_heavy(arguments):
    loaded, done = _loaded_by("-m", "pipeline", *arguments)
    assert done.returncode == 0
    assert done.stdout.strip()
    assert "pipeline" in loaded
    assert not loaded & HEAVY


def test_what_is_heavy_would_be_seen():
    loaded, done = _loaded_by("-c", "import pipeline.results, numpy")
    assert done.returncode == 0
    assert loaded & HEAVY == {"numpy"}
