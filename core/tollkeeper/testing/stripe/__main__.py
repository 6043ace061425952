"""`python -m tollkeeper.testing.stripe`: the fake on a port, until Ctrl-C."""

import signal
from functools import partial

import click
import trio

from tollkeeper.testing.stripe.fake import FakeStripe, fake_stripe
from tollkeeper.testing.stripe.refusals import Refusal


def _read_price(given: str) -> tuple[str, int, str]:
    """`name=cents` or `name=cents@meter`."""
    name, _, rest = given.partition("=")
    cents, _, meter = rest.partition("@")
    if not name or not cents.isdecimal():
        raise click.BadParameter(f"{given!r} is not like price_pro=2000 or price_used=1@tokens")
    return name, int(cents), meter


def _add_prices(fake: FakeStripe, prices: list[tuple[str, int, str]]) -> None:
    for name, cents, meter in prices:
        fake.add_price(name, cents, meter=fake.add_meter(meter) if meter else "")


async def _run(
    port: int, webhook: str, webhook_secret: str, prices: list[tuple[str, int, str]]
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with fake_stripe(
            port=port, webhook_url=webhook, webhook_secret=webhook_secret
        ) as fake:
            _add_prices(fake, prices)
            _tell(fake, prices)
            async for _ in signals:
                break


def _tell(fake: FakeStripe, prices: list[tuple[str, int, str]]) -> None:
    """Say how to use it."""
    click.echo(f"A fake Stripe serves on {fake.url}. In the configuration:\n")
    click.echo("[plugins.billing]")
    click.echo(f'secret_key = "{fake.secret_key}"')
    click.echo(f'webhook_secret = "{fake.webhook_secret}"')
    click.echo(f'api_base = "{fake.url}"\n')
    for name, cents, meter in prices:
        by_meter = f" a unit, by the meter {meter}" if meter else ""
        click.echo(f"Price {name}: {cents} cents{by_meter}, monthly.")
    click.echo(f"Events go to {fake.webhook_url or 'nobody (--webhook URL)'}. Ctrl-C stops it.")


@click.command(help="Serve a fake Stripe on loopback until Ctrl-C. No money moves.")
@click.option("--port", default=4242, show_default=True, help="Port on 127.0.0.1; 0 for any.")
@click.option("--webhook", default="", help="URL that events are posted to.")
@click.option("--webhook-secret", default="whsec_fake", show_default=True)
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="ID=CENTS[@METER]",
    help="A monthly price, by a meter where one is named. Repeatable.",
)
def main(port: int, webhook: str, webhook_secret: str, prices: tuple[str, ...]) -> None:
    """Serve until a signal comes."""
    if webhook and not webhook.startswith("http://"):
        raise click.BadParameter("the webhook is a plain http URL")
    given = [_read_price(price) for price in prices]
    try:
        trio.run(partial(_run, port, webhook, webhook_secret, given))
    except (OSError, Refusal) as error:
        raise click.ClickException(f"it cannot serve on port {port}: {error}") from None


if __name__ == "__main__":
    main()
