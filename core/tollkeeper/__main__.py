"""The command line: `tollkeeper COMMAND`."""

import click

from tollkeeper._cli.group import TollkeeperGroup, config_option
from tollkeeper._cli.project import check, init, plugins, schema
from tollkeeper._cli.serving import demo, serve


@click.group(cls=TollkeeperGroup, params=[config_option()])
@click.version_option(package_name="tollkeeper")
def main() -> None:
    """A self-hosted, OpenAI-compatible LLM gateway whose every concern is a plugin."""


for command in (demo, init, serve, check, plugins, schema):
    main.add_command(command)

if __name__ == "__main__":
    main()
