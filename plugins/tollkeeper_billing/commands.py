"""`tollkeeper billing`."""

import json
import sys
import time
from decimal import Decimal, InvalidOperation
from typing import Any

import click
import msgspec
import trio

from tollkeeper import Database, Gateway, Org
from tollkeeper.amounts import NANO, dollars, nanousd
from tollkeeper.ledger import UsageSource
from tollkeeper_billing import purchases
from tollkeeper_billing.processor import Declined, Unreachable, connected
from tollkeeper_billing.reconcile import Day, Unpaid, compare_days, find_unpaid
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import TOPIC

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


class _Dollars(click.ParamType[int]):
    """US dollars, in nano-USD: an amount that is one, and that nothing is cut off."""

    name = "usd"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read it."""
        if isinstance(value, int):
            return value
        try:
            amount = Decimal(value)
            if 0 < abs(amount) <= 10**9 and amount * NANO % 1 == 0:
                return nanousd(amount)
        except (InvalidOperation, ValueError):
            pass
        return self.fail(f'"{value}" is no amount of US dollars such as 10.00', param, ctx)


def billing_command(settings: BillingSettings, gateway: Gateway) -> click.Group:
    """The command group."""
    group = click.Group("billing", help="Grant credit, and compare the books with Stripe.")

    @group.command("grant", help="Change the balance of an organization by hand.")
    @click.option("--org", required=True, help="Its id.")
    @click.option("--amount", required=True, type=_Dollars(), help="US dollars; less than 0 takes.")
    @click.option("--note", default="by the operator", show_default=True, help="Why.")
    @_json
    def grant(org: str, amount: int, note: str, as_json: bool) -> None:
        _grant(gateway.database, org, amount, note)
        told = {"org": org, "amount": dollars(amount)}
        click.echo(json.dumps(told) if as_json else f"{org} was granted {dollars(amount)} USD.")

    @group.command("reconcile", help="Compare ledger, books and Stripe, per organization and day.")
    @click.option("--days", default=7, show_default=True, type=click.IntRange(1, 366))
    @click.option("--fix", is_flag=True, help="Credit what was paid and whose webhook never came.")
    @_json
    def reconcile(days: int, fix: bool, as_json: bool) -> None:
        try:
            compared, unpaid = trio.run(_reconcile, settings, gateway, days, fix)
        except (Declined, Unreachable) as error:
            raise click.ClickException(f"Stripe does not say: {error}") from None
        _print_reconciled(compared, unpaid, as_json=as_json)

    return group


def _grant(database: Database, org: str, amount: int, note: str) -> None:
    now = int(time.time())
    with database.transaction() as connection:
        if not org_exists(connection, org):
            raise click.ClickException(f"no organization has the id {org}")
        source = f"grant:{time.time_ns()}"
        purchases.add_credit(connection, (org, "grant", amount), source, note, now)
    _tell(database)


def org_exists(database: Any, org: str) -> bool:  # noqa: ANN401
    """Whether there is one of this id."""
    return bool(Org.select().where(Org.id == org).count(database))


def _tell(database: Database) -> None:
    for socket in database.announcer.tell_others(TOPIC):
        click.echo(f"The gateway behind {socket} did not confirm; restart it.", err=True)


async def _reconcile(
    settings: BillingSettings, gateway: Gateway, days: int, fix: bool
) -> tuple[list[Day], list[Unpaid]]:
    usage = gateway.find(UsageSource)  # type: ignore[type-abstract] # names a service
    if usage is None:
        raise click.ClickException("no plugin that is on sums up usage")
    now = int(time.time())
    async with connected(settings) as stripe:
        try:
            unpaid = await find_unpaid(gateway.database, stripe, days, now, fix=fix)
        finally:
            if fix:  # what was credited before Stripe went away too
                await trio.to_thread.run_sync(_tell, gateway.database)
        compared = await compare_days(gateway.database, usage, stripe, days, now)
    return compared, unpaid


def _print_reconciled(compared: list[Day], unpaid: list[Unpaid], *, as_json: bool) -> None:
    wrong = [day for day in compared if not day.ok] + [each for each in unpaid if not each.fixed]
    if as_json:
        days, missed = msgspec.to_builtins(compared), msgspec.to_builtins(unpaid)
        click.echo(json.dumps({"ok": not wrong, "days": days, "uncredited": missed}))
        sys.exit(1 if wrong else 0)
    for each in compared:
        day = time.strftime("%Y-%m-%d", time.gmtime(each.day))
        stripe = "-" if each.stripe_cents is None else f"{each.stripe_cents}c"
        click.echo(
            f"{day}  {each.org}  ledger {each.ledger}  drawn {each.drawn}"
            f"  metered {each.metered_cents}c ({each.unsent_cents}c on the way)"
            f"  Stripe {stripe}  {'ok' if each.ok else 'DIFFERS'}"
        )
    for missed in unpaid:
        state = "credited now" if missed.fixed else "NOT CREDITED: run with --fix"
        click.echo(f"{missed.session} of {missed.org} was paid and its webhook never came: {state}")
    click.echo("All agree." if not wrong else f"{len(wrong)} do not agree.")
    sys.exit(1 if wrong else 0)
