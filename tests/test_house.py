"""The rules of the house, checked: what lies where, how long it may be, what it may not do."""

import ast
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = sorted((ROOT / "core").rglob("*.py")) + sorted((ROOT / "plugins").rglob("*.py"))

FILE_WALL = 300
FUNCTION_WALL = 40
PARAMETER_WALL = 5

# Exceptions by name. These sets can only shrink.
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
MANY_PARAMETERS = {
    # Its parameters are the parts of a route; each has a name and most a default.
    "core/tollkeeper/gateway.py:add_route",
}
WITHOUT_TWIN = {
    "__init__",
    "settings",
    "exchange",
    "ledger",
    "management",
    "notice",
    "provider",
    "shapes",
}


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def plugin_names() -> set[str]:
    folders = (path for path in (ROOT / "plugins").iterdir() if path.is_dir())
    return {path.name.removeprefix("tollkeeper_") for path in folders if path.name[0] != "_"}


def test_no_file_is_longer_than_the_wall() -> None:
    long = {shown(path) for path in SOURCES if len(path.read_text().splitlines()) > FILE_WALL}
    assert long == LONG_FILES


def test_no_function_is_longer_than_the_wall() -> None:
    long = {
        f"{shown(path)}:{function.name}"
        for path in SOURCES
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno + 1 > FUNCTION_WALL
    }
    assert long == LONG_FUNCTIONS


def test_no_function_has_more_parameters_than_the_wall() -> None:
    many = set()
    for path in SOURCES:
        for function in functions(path):
            arguments = function.args
            names = [a.arg for a in [*arguments.args, *arguments.kwonlyargs]]
            if len([name for name in names if name not in ("self", "cls")]) > PARAMETER_WALL:
                many.add(f"{shown(path)}:{function.name}")
    assert many == MANY_PARAMETERS


def test_folders_entry_points_and_linter_roots_are_the_same_plugins() -> None:
    names = plugin_names()
    assert set(PROJECT["project"]["entry-points"]["tollkeeper"]) == names
    roots = set(PROJECT["tool"]["importlinter"]["root_packages"]) - {"tollkeeper"}
    assert {root.removeprefix("tollkeeper_") for root in roots} == names
    installed = {
        p.name for p in entry_points(group="tollkeeper") if p.dist and p.dist.name == "tollkeeper"
    }
    assert installed == names, "a new entry point shows only after `pip install -e .`"


def test_linter_contracts_name_every_plugin() -> None:
    packages = {f"tollkeeper_{name}" for name in plugin_names()}
    for contract in PROJECT["tool"]["importlinter"]["contracts"]:
        if contract["name"].startswith(("The core never", "Plugins are", "Only the core")):
            named = {*contract.get("modules", ()), *contract.get("source_modules", ())}
            named |= set(contract.get("forbidden_modules", ()))
            assert packages <= named, contract["name"]


LEDGER = {
    "accounts.py",
    "prices.py",
    "rates.py",
    "bounds.py",
    "entries.py",
}  # what an attempt is in money
LEDGER |= {"rows.py", "chain.py", "writer.py", "syncing.py", "ballast.py"}  # how it is written
LEDGER |= {"usage.py", "audit.py"}  # how it is read
ACCOUNTS = {"passwords.py", "tokens.py", "attempts.py", "authorizer.py"}  # who it is
ACCOUNTS |= {"orgs.py", "invitations.py", "writes.py", "schemas.py"}  # what there is
ACCOUNTS |= {"routes_auth.py", "routes_keys.py"}
BILLING = {"balances.py", "draws.py", "purses.py", "allowances.py"}  # what there is
BILLING |= {"customers.py", "purchases.py", "inbox.py", "schemas.py"}  # who buys what
BILLING |= {"till.py", "rounds.py", "topups.py", "sending.py", "outbox.py"}  # what runs
BILLING |= {"desk.py", "routes_topup.py"}
BILLING |= {"processor.py", "asking.py", "reconcile.py"}  # the other side


@pytest.mark.parametrize("name", sorted(plugin_names()))
def test_a_plugin_folder_holds_only_files_of_known_names(name: str) -> None:
    known = {"README.md", "__init__.py", "settings.py", "models.py", "service.py", "routes.py"}
    known |= {"commands.py", "migrations", "py.typed", "__pycache__"}
    known |= {
        "request.py",
        "reply.py",
        "stream.py",
        "shapes.py",
    }  # a service that translates, in three parts
    own = {"metering": LEDGER, "accounts": ACCOUNTS, "billing": BILLING}
    own |= {"apidocs": {"document.py", "pages.py"}}
    known |= own.get(name, set())
    folder = ROOT / "plugins" / f"tollkeeper_{name}"
    assert {path.name for path in folder.iterdir()} <= known
    assert (folder / "README.md").is_file()
    assert (folder / "py.typed").is_file()


def test_every_module_with_logic_has_a_test_twin() -> None:
    missing = []
    for path in SOURCES:
        relative = path.relative_to(ROOT / path.relative_to(ROOT).parts[0])
        if path.stem in WITHOUT_TWIN or "migrations" in relative.parts:
            continue
        twin = ROOT / "tests" / relative.parent / f"test_{path.stem.strip('_')}.py"
        if not twin.is_file():
            missing.append(shown(twin))
    for name in plugin_names():
        twin = ROOT / "tests" / f"tollkeeper_{name}" / f"test_{name}.py"
        if not twin.is_file():
            missing.append(shown(twin))
    assert not missing


def test_every_test_twin_has_its_module() -> None:
    orphans = []
    for twin in sorted((ROOT / "tests").glob("tollkeeper*/**/test_*.py")):
        relative = twin.relative_to(ROOT / "tests")
        stem = twin.stem.removeprefix("test_")
        root = ROOT / ("core" if relative.parts[0] == "tollkeeper" else "plugins")
        folder = root / relative.parent
        names = [f"{stem}.py", f"_{stem}.py", f"__{stem}__.py", stem]
        is_plugin_itself = folder.name == f"tollkeeper_{stem}"
        if not is_plugin_itself and not any((folder / name).exists() for name in names):
            orphans.append(shown(twin))
    assert not orphans


def test_nothing_is_evaluated_unpickled_or_run_from_text() -> None:
    banned = {"exec", "eval", "compile", "__import__"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in banned, f"{shown(path)}:{node.lineno}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = getattr(node, "module", None) or node.names[0].name
                assert module.partition(".")[0] not in {"pickle", "subprocess", "asyncio"}, path


def test_every_runtime_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("dependencies = [", 1)[1].split("]", 1)[0]
    lines = [line.strip() for line in block.splitlines() if line.strip()]
    assert lines
    assert all("# " in line for line in lines)


PUBLIC_NAMES = [
    "ANONYMOUS",
    "Answer",
    "ApiError",
    "Asked",
    "Attempt",
    "Authorizer",
    "Caller",
    "ChunkReader",
    "Clock",
    "ConfigError",
    "Database",
    "Deployment",
    "Dialect",
    "Event",
    "Exchange",
    "Failed",
    "Gateway",
    "Head",
    "KeyIssuer",
    "ModelSettings",
    "Money",
    "NewKey",
    "Notice",
    "Operation",
    "Org",
    "Outcome",
    "PluginError",
    "PluginSettings",
    "PriceSettings",
    "Principal",
    "Provider",
    "ProviderContext",
    "ProviderSettings",
    "Refused",
    "Reply",
    "Seconds",
    "Secret",
    "Send",
    "Session",
    "Size",
    "StreamReader",
    "Tap",
    "TollkeeperError",
    "Translation",
    "Unsupported",
    "Upstream",
    "UpstreamError",
    "UpstreamRequest",
    "Usage",
    "bound_of",
    "broken",
    "ensure_org",
    "find_value",
    "hookimpl",
    "invalid_request",
    "model_not_found",
    "quote",
    "replace_value",
    "translate_reply",
]
"""What plugins may use. A name that is added here is kept; one that is removed breaks somebody."""


def test_the_public_names_are_these() -> None:
    import tollkeeper

    assert tollkeeper.__all__ == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert hasattr(tollkeeper, name), name
