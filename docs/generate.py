"""Rewrite what is generated: config.example.toml, and the marked blocks in docs/reference.

A block stands between `<!-- generated: NAME -->` and `<!-- /generated -->`. With --check nothing is
written, and the exit code is 1 where something would change.
"""

import ast
import inspect
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

import click

from tollkeeper import exchange
from tollkeeper.__main__ import main as tollkeeper
from tollkeeper.catalogue import Catalogue, PluginClass
from tollkeeper.gateway import Gateway
from tollkeeper.hookspecs import Hooks
from tollkeeper.notice import Notice
from tollkeeper.schema import CORE_TABLES, example_toml, option_rows
from tollkeeper.settings import PluginSettings, Table

ROOT = Path(__file__).parent.parent
BUILT_IN = (
    *("keys", "limits", "routing", "metering", "budgets", "accounts", "billing", "apidocs"),
    *("openai", "anthropic", "gemini", "demo"),
    *("messages", "responses", "completions", "embeddings"),
    *("moderations", "images", "audio", "rerank"),
)
PLAIN_DATA = (
    exchange.Exchange,
    exchange.Principal,
    exchange.Deployment,
    exchange.Attempt,
    exchange.Usage,
    exchange.Outcome,
    exchange.Head,
    exchange.Event,
    exchange.Answer,
    exchange.Operation,
    Notice,
)

_BLOCK = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- /generated -->)", re.DOTALL)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def members(cls: type[Any]) -> list[ast.stmt]:
    """What stands in the source of a class."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    return definition.body if isinstance(definition, ast.ClassDef) else []


def functions(cls: type[Any]) -> list[Function]:
    """Its public functions, in the order of the source."""
    found = [node for node in members(cls) if isinstance(node, Function)]
    return [function for function in found if not function.name.startswith("_")]


def signature(function: Function) -> str:
    """A function's head on one line, as its source has it."""
    word = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"{word} {function.name}({ast.unparse(function.args)}){returns}"


def told(text: str) -> str:
    """A docstring as Markdown: each labelled promise becomes a paragraph of its own."""
    return re.sub(r"(?m)^(When|Promise|Afterwards):", r"\n**\1:**", text).replace("\n\n\n", "\n\n")


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def users_of(hook: str, plugins: list[PluginClass]) -> str:
    """The built-in plugins that implement a hook."""
    return ", ".join(plugin.name for plugin in plugins if hook in plugin.hooks())


def glance(plugins: list[PluginClass]) -> str:
    """All hooks in one table."""
    lines = [row("Hook", "Colour", "Who is asked", "Built-in plugins"), row(*["---"] * 4)]
    for function in functions(Hooks):
        colour = "async" if isinstance(function, ast.AsyncFunctionDef) else "sync"
        first = "firstresult" in ast.unparse(function.decorator_list[0])
        asked = "until one answers" if first else "every plugin"
        users = users_of(function.name, plugins) or "-"
        lines.append(row(f"`{function.name}`", colour, asked, users))
    return "\n".join(lines)


def hooks(plugins: list[PluginClass]) -> str:
    """Each hook under its signature, with its promise."""
    parts = []
    for function in functions(Hooks):
        parts += [f"### `{signature(function)}`", told(ast.get_docstring(function) or "")]
        if users := users_of(function.name, plugins):
            parts.append(f"Implemented by the built-in plugins: {users}.")
    return "\n\n".join(parts)


def methods(cls: type[Any]) -> str:
    """A class's properties and public functions, one after another."""
    parts = []
    for function in functions(cls):
        head = re.sub(r"\(self(, )?", "(", signature(function))
        if function.decorator_list and function.returns:
            head = f"{function.name}: {ast.unparse(function.returns)}"
        parts.append(f"### `{head}`\n\n{ast.get_docstring(function)}")
    return "\n\n".join(parts)


def fields(cls: type[Any]) -> Iterator[str]:
    """The rows of a dataclass: name, type and the docstring that follows the field."""
    for node, after in pairwise([*members(cls), ast.Pass()]):
        if isinstance(node, ast.AnnAssign):
            doc = ast.get_docstring(ast.Module([after], [])) or ""
            name, kind = ast.unparse(node.target), ast.unparse(node.annotation).strip("'")
            yield row(f"`{name}`", f"`{kind}`", " ".join(doc.split()))


def plain_data() -> str:
    """Every class that hooks are given, with its fields."""
    parts = []
    for cls in PLAIN_DATA:
        table = [row("Field", "Type", "What it is"), row(*["---"] * 3), *fields(cls)]
        parts += [f"### `{cls.__name__}`", inspect.getdoc(cls) or "", "\n".join(table)]
    return "\n\n".join(parts)


def compatibility() -> str:
    """What each dialect of clients does with each provider, from the data of its tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    return import_module("compatibility.cells").table()  # type: ignore[no-any-return]


def bounds(schema: dict[str, Any]) -> str:
    """What a JSON Schema says of a number's range."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']:g}"
    if low is None:
        return ""
    return f", at least {low}" if high is None else f", {low} to {high}"


def options(name: str, table: type[Table]) -> str:
    """A table of the TOML, with every option."""
    lines = [row("Option", "Type", "Default", "What it does"), row(*["---"] * 4)]
    properties = table.model_json_schema()["properties"]
    for option, kind, default, text in option_rows(table):
        missing = "required" if table.model_fields[option].is_required() else "none"
        kind += bounds(properties[option])
        lines.append(row(f"`{option}`", kind, f"`{default}`" if default else missing, text))
    head = f"[[{name[:-2]}]]" if name.endswith("[]") else f"[{name}]"
    own = table is not PluginSettings
    introduction = " ".join((table.__doc__ or "").split()) if own else "No settings of its own."
    return "\n\n".join([f"### `{head}`", introduction, "\n".join(lines)])


def inner_tables(plugins: list[PluginClass]) -> Iterator[tuple[str, type[Table]]]:
    """Tables that stand in an array of a plugin's settings, or below names in it."""
    for plugin in plugins:
        for option, field in plugin.settings.model_fields.items():
            for part in get_args(field.annotation):
                if isinstance(part, type) and issubclass(part, Table):
                    inside = ".<name>" if get_origin(field.annotation) is dict else "[]"
                    yield f"plugins.{plugin.name}.{option}{inside}", part


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, str]]:
    """Each command by its path, with its usage and options as click tells them."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            continue
        inner = click.Context(command, context, info_name=name)
        usage = " ".join([inner.command_path, *command.collect_usage_pieces(inner)])
        lines = [row("Option", "What it does"), row("---", "---")]
        records = (param.get_help_record(inner) for param in command.get_params(inner))
        lines += [row(f"`{record[0]}`", record[1]) for record in records if record]
        text = f"{command.help}\n\n```text\n{usage}\n```\n\n" + "\n".join(lines)
        yield f"command {inner.command_path.partition(' ')[2]}", text
        if isinstance(command, click.Group):
            yield from commands(command, inner)


def blocks() -> dict[str, str]:
    """Every generated block by its name."""
    catalogue = Catalogue()
    plugins = [catalogue.load(name) for name in BUILT_IN]
    found = {
        "hooks at a glance": glance(plugins),
        "hooks": hooks(plugins),
        "gateway": methods(Gateway),
        "plain data": plain_data(),
        "compatibility": compatibility(),
    }
    found |= {f"table {name}": options(name, table) for name, table in CORE_TABLES}
    found |= {f"plugin {p.name}": options(f"plugins.{p.name}", p.settings) for p in plugins}
    found |= {f"table {name}": options(name, table) for name, table in inner_tables(plugins)}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "tollkeeper.toml")
        config.write_text(example_toml(plugins))
        os.environ.setdefault("JWT_SECRET", "only to list the commands of an example")
        os.environ.setdefault("STRIPE_SECRET_KEY", "sk_test_only_to_list_them")
        os.environ.setdefault("STRIPE_WEBHOOK_SECRET", "whsec_only_to_list_them")
        context = click.Context(tollkeeper, info_name="tollkeeper", obj=config)
        found |= dict(commands(tollkeeper, context))
    return found


def generated() -> Iterator[tuple[Path, str]]:
    """Each generated file with the text that it should have."""
    catalogue = Catalogue()
    yield ROOT / "config.example.toml", example_toml([catalogue.load(name) for name in BUILT_IN])
    rest = blocks()
    for path in sorted((ROOT / "docs" / "reference").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for _, name, _ in _BLOCK.findall(text):
            block = rest.pop(name)
            start, end = f"<!-- generated: {name} -->\n", "\n<!-- /generated -->"
            before, _, after = text.partition(start)
            text = f"{before}{start}{block}{end}{after.partition('<!-- /generated -->')[2]}"
        yield path, text
    if rest:
        raise click.ClickException(f"no page in docs/reference has a block for: {', '.join(rest)}")


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where something would change.")
def generate(check: bool) -> None:
    """Rewrite config.example.toml and the generated blocks in docs/reference."""
    stale = 0
    for path, text in generated():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if not check:
            path.write_text(text, encoding="utf-8")
        state = "is out of date; run: make docs" if check else "was rewritten"
        click.echo(f"{path.relative_to(ROOT)} {state}", err=check)
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    generate()
