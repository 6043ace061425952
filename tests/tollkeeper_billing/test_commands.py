"""`tollkeeper billing` as an operator types it."""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from click.testing import CliRunner, Result
from processes import free_port, run

from tollkeeper import Database, Gateway
from tollkeeper.ledger import UsageQuery, UsageSum
from tollkeeper.storage import ensure_org, make_database
from tollkeeper.testing import JumpClock
from tollkeeper.testing.stripe import FakeStripe, fake_stripe
from tollkeeper_billing import commands, draws, purchases
from tollkeeper_billing.draws import Terms
from tollkeeper_billing.models import Checkout, Credit, MeterEvent, State
from tollkeeper_billing.processor import connected
from tollkeeper_billing.purchases import Offer
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import TOPIC

NOW = 1_795_564_800  # 2026-11-25T00:00Z
CENT = 10**7
ACCOUNT = {"secret_key": "sk_test_fake", "webhook_secret": "whsec_fake"}
ACCOUNT |= {"success_url": "https://example.com/", "cancel_url": "https://example.com/"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_file(tmp_path)
    yield opened
    opened.close()


def open_file(folder: Path) -> Database:
    opened = make_database("sqlite:///my.db", folder)
    opened.open()
    opened.migrate_package("billing", "tollkeeper_billing")
    with opened.transaction() as db:
        ensure_org(db, "acme")
    return opened


@pytest.fixture(autouse=True)
def _it_is_the_25th(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(
        time=lambda: NOW + 0.5,
        time_ns=time.time_ns,
        strftime=time.strftime,
        gmtime=time.gmtime,
    )
    monkeypatch.setattr(commands, "time", clock)


class Books:
    """What the command sees of a gateway: a database, and the ledger's sum of each day."""

    def __init__(self, database: Database, charged: dict[int, int] | None = None) -> None:
        self.database = database
        self._charged = charged

    def find(self, _protocol: type[Any]) -> object:
        return None if self._charged is None else self

    async def usage(self, query: UsageQuery) -> Sequence[UsageSum]:
        cents = (self._charged or {}).get(query.since, 0)
        return [UsageSum("acme", 1, 1, 0, 0, 0, 0, 0, 0, cents * CENT, 0)] if cents else []


def billing(books: Books, *args: str, url: str = "http://127.0.0.1:1") -> Result:
    settings = BillingSettings.model_validate(ACCOUNT | {"api_base": url})
    command = commands.billing_command(settings, cast("Gateway", books))
    return CliRunner().invoke(command, args)


def grant(database: Database, amount: str, *args: str, org: str = "acme") -> Result:
    return billing(Books(database), "grant", "--org", org, "--amount", amount, *args)


def credits(database: Database) -> list[tuple[Any, ...]]:
    columns = (Credit.org, Credit.kind, Credit.amount_nanousd, Credit.note, Credit.created_at)
    with database.reading() as db:
        return list(Credit.select(*columns).order_by(Credit.id).tuples().execute(db))


def test_what_is_granted_is_credit_and_is_told(database: Database) -> None:
    result = grant(database, "10")
    assert (result.exit_code, result.stdout) == (0, "acme was granted 10.00 USD.\n")
    assert credits(database) == [("acme", "grant", 10**10, "by the operator", NOW)]


def test_a_grant_is_one_json_document_with_its_note_kept(database: Database) -> None:
    result = grant(database, "0.015", "--note", "we were down", "--json")
    assert json.loads(result.stdout) == {"org": "acme", "amount": "0.015"}
    assert credits(database)[0][2:4] == (15_000_000, "we were down")


def test_each_grant_counts_and_one_of_less_than_nothing_takes(database: Database) -> None:
    for amount in ("5.00", "5.00", "-2.50"):
        assert grant(database, amount).exit_code == 0
    assert sum(amount for _, _, amount, *_ in credits(database)) == 7_500_000_000


@pytest.mark.parametrize(
    ("amount", "nanousd"),
    [("0.000000001", 1), ("1000000000", 10**18), ("-1000000000", -(10**18)), ("+1", 10**9)],
)
def test_amounts_are_exact_to_the_last_nano_dollar(
    database: Database, amount: str, nanousd: int
) -> None:
    assert grant(database, amount).exit_code == 0
    assert credits(database)[0][2] == nanousd


@pytest.mark.parametrize(
    "amount",
    ["", "ten", "1,00", "$5", "NaN", "sNaN", "Infinity", "-inf", "1000000000.01", "1e99", "0x1"],
)
def test_an_amount_that_is_none_is_a_usage_error(database: Database, amount: str) -> None:
    result = grant(database, amount)
    assert result.exit_code == 2
    assert "10.00" in result.stderr
    assert credits(database) == []


@pytest.mark.parametrize("amount", ["0", "-0.00", "0.0000000001", "-1.0000000005"])
def test_a_grant_of_nothing_or_of_less_than_a_nano_dollar_is_a_usage_error(
    database: Database, amount: str
) -> None:
    assert grant(database, amount).exit_code == 2
    assert credits(database) == []


@pytest.mark.parametrize(
    "args", [["grant"], ["grant", "--org", "acme"], ["grant", "--amount", "1"]]
)
def test_a_grant_names_an_organization_and_an_amount(database: Database, args: list[str]) -> None:
    assert billing(Books(database), *args).exit_code == 2


@pytest.mark.parametrize("org", ["nobody", "", "ACME"])
def test_an_organization_that_nobody_knows_is_granted_nothing(database: Database, org: str) -> None:
    result = grant(database, "10", org=org)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"no organization has the id {org}" in result.stderr
    assert credits(database) == []


async def test_a_gateway_that_runs_has_the_grant_in_force_before_the_command_ends(
    tmp_path: Path, database: Database
) -> None:
    other = open_file(tmp_path)
    heard: list[int] = []

    async def apply() -> None:
        heard.append(len(credits(other)))

    with other.announcer.subscribed(TOPIC, apply):
        async with other.announcer.listening():
            result = await trio.to_thread.run_sync(grant, database, "10")
            assert heard == [1]
    assert (result.exit_code, result.stderr) == (0, "")
    other.close()


async def test_a_gateway_that_did_not_take_it_over_is_named(
    tmp_path: Path, database: Database
) -> None:
    other = open_file(tmp_path)

    async def fail() -> None:
        raise LookupError

    with other.announcer.subscribed(TOPIC, fail):
        async with other.announcer.listening():
            result = await trio.to_thread.run_sync(grant, database, "10")
    assert result.exit_code == 0
    assert "did not confirm; restart it" in result.stderr
    assert "restart" not in result.stdout
    other.close()


class Desk:
    """An operator before Stripe."""

    def __init__(self, database: Database, stripe: FakeStripe) -> None:
        self.database = database
        self.stripe = stripe
        self.customer = str(stripe.add("customer", "cus", {"metadata": {}})["id"])
        self.charged: dict[int, int] = {}
        with database.transaction() as db:
            draws.begin(db, NOW, livemode=False)

    async def reconcile(self, *args: str) -> Result:
        def typed() -> Result:
            books = Books(self.database, self.charged)
            return billing(books, "reconcile", *args, url=self.stripe.url)

        return await trio.to_thread.run_sync(typed)

    async def reconcile_json(self, *args: str) -> Any:
        return json.loads((await self.reconcile(*args, "--json")).stdout)

    def use(self, cents: int, meter: str = "") -> None:
        """Charge so much today, and draw it; what a meter bills has reached Stripe."""
        self.charged[NOW] = cents
        terms = Terms(self.customer, meter)
        with self.database.transaction() as db:
            draws.draw(db, NOW, [("acme", cents * CENT)], lambda _: terms, NOW)
            MeterEvent.update(state="sent").execute(db)
        event = {"event_name": meter, "customer": self.customer, "timestamp": NOW, "value": cents}
        self.stripe.meter_events.append(event)

    async def sell(self) -> str:
        """Have a pack paid whose webhook never comes; the session."""
        offer = Offer("pack", "small", 1000, 1000 * CENT)
        with self.database.transaction() as db:
            bought = purchases.open_checkout(db, ("acme", self.customer), offer, "u", NOW)
        settings = BillingSettings.model_validate(ACCOUNT | {"api_base": self.stripe.url})
        async with connected(settings) as opened:
            session, _ = await opened.open_session(bought)
        with self.database.transaction() as db:
            purchases.note_session(db, bought.id, session)
        self.stripe.pay(session)
        return session


@contextlib.asynccontextmanager
async def desk(database: Database) -> AsyncIterator[Desk]:
    clock = JumpClock()
    clock.now = float(NOW)
    async with fake_stripe(clock=clock) as stripe:
        stripe.add_meter("usd_cents")
        yield Desk(database, stripe)


async def test_where_nothing_was_used_all_agree(database: Database) -> None:
    async with desk(database) as clerk:
        result = await clerk.reconcile()
        assert (result.exit_code, result.stdout) == (0, "All agree.\n")
        assert await clerk.reconcile_json() == {"ok": True, "days": [], "uncredited": []}


async def test_a_day_is_one_line_with_what_all_three_say(database: Database) -> None:
    async with desk(database) as clerk:
        clerk.use(150, "usd_cents")
        result = await clerk.reconcile()
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == [
            "2026-11-25  acme  ledger 1.50  drawn 1.50  metered 150c (0c on the way)"
            "  Stripe 150c  ok",
            "All agree.",
        ]
        (day,) = (await clerk.reconcile_json())["days"]
        assert day == {
            "org": "acme",
            "day": NOW,
            "ledger": "1.50",
            "drawn": "1.50",
            "metered_cents": 150,
            "unsent_cents": 0,
            "stripe_cents": 150,
            "ok": True,
        }


async def test_a_day_without_a_meter_shows_no_cents_of_stripe(database: Database) -> None:
    async with desk(database) as clerk:
        clerk.use(150)
        assert "  Stripe -  ok" in (await clerk.reconcile()).stdout
        assert (await clerk.reconcile_json())["days"][0]["stripe_cents"] is None


async def test_what_differs_exits_with_one_and_is_named(database: Database) -> None:
    async with desk(database) as clerk:
        clerk.use(150, "usd_cents")
        clerk.stripe.meter_events.clear()
        result = await clerk.reconcile()
        assert result.exit_code == 1
        assert "Stripe 0c  DIFFERS" in result.stdout
        assert result.stdout.endswith("\n1 do not agree.\n")
        document = await clerk.reconcile("--json")
        assert document.exit_code == 1
        told = json.loads(document.stdout)
        assert (told["ok"], told["days"][0]["ok"]) == (False, False)


async def test_what_was_paid_and_not_credited_is_named_and_nothing_is_changed(
    database: Database,
) -> None:
    async with desk(database) as clerk:
        session = await clerk.sell()
        result = await clerk.reconcile()
        assert result.exit_code == 1
        assert f"{session} of acme was paid" in result.stdout
        assert "NOT CREDITED: run with --fix" in result.stdout
        told = await clerk.reconcile_json()
        assert told["ok"] is False
        (missed,) = told["uncredited"]
        assert (missed["session"], missed["org"], missed["fixed"]) == (session, "acme", False)
        assert credits(database) == []


async def test_with_fix_it_is_credited_once(database: Database) -> None:
    async with desk(database) as clerk:
        await clerk.sell()
        result = await clerk.reconcile("--fix")
        assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "All agree.")
        assert "credited now" in result.stdout
        assert await clerk.reconcile_json("--fix") == {"ok": True, "days": [], "uncredited": []}
        assert [(org, kind, amount) for org, kind, amount, *_ in credits(database)] == [
            ("acme", "pack", 1000 * CENT)
        ]


async def test_with_fix_what_is_not_as_it_was_offered_stays_and_is_told(
    database: Database,
) -> None:
    async with desk(database) as clerk:
        session = await clerk.sell()
        clerk.stripe.find("checkout.session", session)["currency"] = "jpy"
        document = await clerk.reconcile("--fix", "--json")
        assert document.exit_code == 1
        assert json.loads(document.stdout)["uncredited"][0]["fixed"] is False
        assert credits(database) == []


@pytest.mark.parametrize("fix", [["--fix"], []])
async def test_with_fix_gateways_that_run_hear_of_it_even_where_stripe_then_goes_away(
    tmp_path: Path, database: Database, fix: list[str]
) -> None:
    other = open_file(tmp_path)
    heard: list[int] = []

    async def apply() -> None:
        heard.append(len(credits(other)))

    async with desk(database) as clerk:
        first, second = await clerk.sell(), await clerk.sell()
        with database.transaction() as db:  # the first is asked for first
            Checkout.update(created_at=NOW - 1).where(Checkout.session == first).execute(db)
        clerk.stripe.fault = lambda _method, path: "drop_before" if path.endswith(second) else ""
        with other.announcer.subscribed(TOPIC, apply):
            async with other.announcer.listening():
                result = await clerk.reconcile(*fix)
    assert result.exit_code == 1
    assert heard == ([1] if fix else [])
    other.close()


@pytest.mark.parametrize("fault", ["drop_before", "500_before", "429"])
@pytest.mark.parametrize("args", [[], ["--fix"], ["--json"]])
async def test_a_stripe_that_does_not_say_is_an_error_and_never_agreement(
    database: Database, fault: str, args: list[str]
) -> None:
    async with desk(database) as clerk:
        await clerk.sell()
        clerk.stripe.fault = lambda _method, _path: fault
        result = await clerk.reconcile(*args)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: Stripe does not say: ")
        assert credits(database) == []


async def test_a_wrong_key_is_an_error_that_does_not_show_it(database: Database) -> None:
    async with desk(database) as clerk:
        await clerk.sell()
        clerk.stripe.secret_key = "sk_test_another"
        result = await clerk.reconcile()
        assert (result.exit_code, result.stdout) == (1, "")
        assert "Stripe does not say" in result.stderr
        assert "sk_test" not in result.stderr


async def test_days_are_counted_back_from_today(database: Database) -> None:
    async with desk(database) as clerk:
        clerk.use(150)
        with database.transaction() as db:
            State.update(value=NOW - 20 * 86_400).where(State.name == "since").execute(db)
        clerk.charged[NOW - 6 * 86_400] = clerk.charged[NOW - 7 * 86_400] = 1
        for args, days in (((), 2), (("--days", "1"), 1), (("--days", "366"), 3)):
            assert len((await clerk.reconcile_json(*args))["days"]) == days


@pytest.mark.parametrize("days", ["0", "-1", "367", "week"])
def test_a_number_of_days_that_is_none_is_a_usage_error(database: Database, days: str) -> None:
    assert billing(Books(database, {}), "reconcile", "--days", days).exit_code == 2


def test_without_anybody_who_sums_up_usage_nothing_is_compared(database: Database) -> None:
    result = billing(Books(database), "reconcile")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "sums up usage" in result.stderr


TOML = """
[models.paid]
deployments = [{{ provider = "demo", model = "demo" }}]
price = {{ input = "1", output = "1" }}
[providers.demo]
kind = "demo"
[plugins.demo]
[plugins.keys]
[plugins.accounts]
jwt_secret = "a secret of these tests, 32 bytes"
[plugins.metering]
[plugins.billing]
secret_key = "${{STRIPE_SECRET_KEY}}"
webhook_secret = "whsec_fake"
api_base = "http://127.0.0.1:{port}"
success_url = "https://example.com/paid"
cancel_url = "https://example.com/prices"
"""


def test_on_the_command_line_it_is_a_command_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "tollkeeper.toml").write_text(TOML.format(port=free_port()))
    given = {"cwd": tmp_path, "STRIPE_SECRET_KEY": "sk_test_never-to-be-shown"}
    args = ("billing", "grant", "--org", "default", "--amount", "10", "--json")
    granted = run(*args, **given)  # type: ignore[arg-type] # the folder and the environment
    assert json.loads(granted.stdout) == {"org": "default", "amount": "10.00"}
    database = make_database("sqlite:///tollkeeper.db", tmp_path)
    customer = ("default", "cus_1")
    with database.transaction() as db:
        draws.begin(db, NOW, livemode=False)
        name = purchases.open_checkout(db, customer, Offer("pack", "small", 1000, 1), "u", NOW).id
        purchases.note_session(db, name, "cs_1")
    database.close()
    compared = run("billing", "reconcile", **given)  # type: ignore[arg-type] # the same
    assert (compared.returncode, compared.stdout) == (1, "")
    assert "Stripe does not say: Stripe cannot be reached" in compared.stderr
    assert "Traceback" not in compared.stderr
    assert "never-to-be-shown" not in compared.stderr
