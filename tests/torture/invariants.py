"""What must hold once all is quiet: the ledger against the upstream's journal, set by set."""

import json
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import msgspec

from torture.load import Seen
from torture.stage import TENTHS, Stage
from torture.upstream import Usage, is_believable, words_of

FREE = ("voided", "expired")
TERMINAL = ("posted", "estimated", *FREE)


class Row(msgspec.Struct):
    """One line of `tollkeeper ledger export --json`. An open hold lacks what its end brings."""

    attempt_id: str
    state: str
    hold_nanousd: int
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanousd: int = 0
    charge_nanousd: int = 0
    exposure_nanousd: int = 0

    @property
    def usage(self) -> Usage:
        """In the upstream's order."""
        return self.input_tokens, self.output_tokens, self.cache_read_tokens, self.reasoning_tokens


@dataclass
class Journal:
    """What the upstream noted."""

    asked: dict[str, dict[str, str]] = field(default_factory=dict)
    """By attempt: the words of its call."""
    told: dict[str, Usage] = field(default_factory=dict)
    """By attempt: the usage that was handed to the kernel in whole."""
    repeated: set[str] = field(default_factory=set)
    """Attempts that came more than once, or whose call did."""


class _Line(msgspec.Struct):
    got: str = ""
    call: int = 0
    asked: str = ""
    told: str = ""
    usage: Usage = (0, 0, 0, 0)


def read_journal(path: Path) -> Journal:
    """All of a journal."""
    journal, calls = Journal(), set()
    decode = msgspec.json.Decoder(_Line).decode
    for line in map(decode, path.read_bytes().splitlines()):
        if line.told:
            journal.told[line.told] = line.usage
            continue
        if line.got in journal.asked or line.call in calls:
            journal.repeated.add(line.got)
        calls.add(line.call)
        journal.asked[line.got] = words_of(line.asked)
    return journal


def cost_of(usage: Usage) -> int:
    """Nano-USD, rounded once, half up."""
    spent, made, cached, _ = usage
    tenths = (spent - cached) * TENTHS["input"] + cached * TENTHS["cache_read"]
    return (tenths + made * TENTHS["output"] + 5) // 10


@dataclass
class Verdict:
    """What was found. Every set must be empty."""

    calls: int = 0
    attempts: int = 0
    states: Counter[str] = field(default_factory=Counter)
    lost: set[str] = field(default_factory=set)
    """Attempts that were served and are not in the ledger, or as if they had cost nothing."""
    invented: set[str] = field(default_factory=set)
    """Attempts that are posted although the upstream never saw them or told no usage."""
    double: set[str] = field(default_factory=set)
    """Attempts with more than one row, or sent more than once."""
    wrong: set[str] = field(default_factory=set)
    """Attempts with other tokens or amounts than what was told, or charged above their hold."""
    open: set[str] = field(default_factory=set)
    """Attempts that are still held."""
    faults: list[str] = field(default_factory=list)
    """What else is not as it should be."""
    notes: str = ""
    """Further figures of the scenario."""
    journal: Journal = field(default_factory=Journal)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        found = (self.lost, self.invented, self.double, self.wrong, self.open, self.faults)
        return not any(found)

    def __str__(self) -> str:
        """One line of figures, and what was found."""
        states = ", ".join(f"{self.states[state]} {state}" for state in TERMINAL)
        sets = ("lost", "invented", "double", "wrong", "open")
        counts = ", ".join(f"{len(getattr(self, name))} {name}" for name in sets)
        line = f"{self.calls} calls, {self.attempts} attempts: {states}; {counts}; {self.notes}"
        for name in sets:
            if found := sorted(getattr(self, name)):
                line += f"\n  {name}: {'; '.join(map(self._named, found[:5]))}"
        return "\n  ".join([line, *self.faults])

    def _named(self, attempt: str) -> str:
        """An attempt and what it asked for."""
        words = self.journal.asked.get(attempt, {})
        return f"{attempt} {' '.join(f'{k}:{v}' for k, v in words.items() if k != 'pad')}"


def check(stage: Stage, seen: Seen) -> Verdict:
    """Judge the ledger of a gateway that was stopped."""
    journal, rows = read_journal(stage.journal), read_ledger(stage)
    verdict = Verdict(seen.sent, len(journal.asked), journal=journal)
    verdict.states.update(row.state for row in rows)
    verdict.notes = "statuses " + ", ".join(f"{s}: {n}" for s, n in sorted(seen.statuses.items()))
    verdict.faults += [f"a garbled reply: {reply}" for reply in seen.garbled[:5]]
    _compare_sets(verdict, journal, rows)
    _compare_amounts(verdict, journal, rows)
    certain = {call: process in stage.clean for call, process in seen.completed.items()}
    _compare_replies(verdict, journal, rows, certain)
    _compare_sums(verdict, stage, rows)
    return verdict


def read_ledger(stage: Stage) -> list[Row]:
    """The ledger as an operator exports it."""
    exported = stage.command("ledger", "export", "--json")
    assert exported.returncode == 0, exported.stderr
    lines = map(json.loads, exported.stdout.splitlines())
    return [
        msgspec.convert({k: v for k, v in line.items() if v is not None}, Row) for line in lines
    ]


def _compare_sets(verdict: Verdict, journal: Journal, rows: list[Row]) -> None:
    """I1 to I4."""
    counts = Counter(row.attempt_id for row in rows)
    verdict.lost |= journal.asked.keys() - counts.keys()
    verdict.double |= journal.repeated | {name for name, count in counts.items() if count > 1}
    for row in rows:
        words = journal.asked.get(row.attempt_id)
        if row.state not in TERMINAL:
            verdict.open.add(row.attempt_id)
        elif row.state == "posted" and row.attempt_id not in journal.told:
            verdict.invented.add(row.attempt_id)
        elif row.state in FREE and words is not None and "refuse" not in words:
            verdict.lost.add(row.attempt_id)


def _compare_amounts(verdict: Verdict, journal: Journal, rows: list[Row]) -> None:
    """I5: what was told is what is paid, and nothing of it goes astray."""
    for row in rows:
        told = journal.told.get(row.attempt_id)
        if row.state == "posted" and told is not None:
            right = row.usage == told and is_exact(row, cost_of(told))
        elif row.state in FREE:
            right = (row.cost_nanousd, row.charge_nanousd, row.exposure_nanousd) == (0, 0, 0)
        elif row.state == "estimated":
            right = 0 <= row.charge_nanousd == row.hold_nanousd - row.exposure_nanousd
        else:
            right = True
        if not right or row.exposure_nanousd < 0:
            verdict.wrong.add(row.attempt_id)


def is_exact(row: Row, cost: int) -> bool:
    """Whether a posted row has this cost. Beyond its hold it may be charged, or be exposure."""
    whole = row.charge_nanousd + row.exposure_nanousd
    return row.cost_nanousd == cost == whole and row.charge_nanousd >= min(cost, row.hold_nanousd)


def _compare_replies(
    verdict: Verdict, journal: Journal, rows: list[Row], completed: dict[int, bool]
) -> None:
    """What a client had in whole is paid for, if its process was not killed right after.

    It is posted where the upstream told a usage that can be believed.
    """
    found, guessed = {row.attempt_id: row for row in rows}, 0
    for attempt, words in journal.asked.items():
        row, certain = found.get(attempt), completed.get(int(words["call"]))
        if row is None or certain is None:
            continue
        paid = row.charge_nanousd > 0 and (row.state == "posted" or not is_believable(words))
        if certain and not paid:
            verdict.lost.add(attempt)
        guessed += not certain and row.state != "posted" and is_believable(words)
    if guessed:
        verdict.notes = f"{guessed} replies that were whole estimated after a kill; {verdict.notes}"


def _compare_sums(verdict: Verdict, stage: Stage, rows: list[Row]) -> None:
    """I6, and what the ledger says of itself."""
    verified = stage.command("ledger", "verify")
    if verified.returncode != 0:
        verdict.faults.append(f"ledger verify: {verified.stdout}{verified.stderr}")
    audited = json.loads(stage.command("ledger", "audit", "--json").stdout)
    if audited["held_nanousd"] or audited["open_holds"]:
        verdict.faults.append(f"{audited['held_nanousd']} nano-USD are held although all is quiet")
    groups = json.loads(stage.command("usage", "--json").stdout)["data"]
    for name in ("attempts", "input_tokens", "output_tokens", "cost", "charge", "exposure"):
        from_rows, rolled_up = (
            sum_of(rows, name),
            sum(Decimal(str(group[name])) for group in groups),
        )
        if from_rows != rolled_up:
            verdict.faults.append(f"{name}: {from_rows} in the rows, {rolled_up} rolled up")


def sum_of(rows: list[Row], name: str) -> Decimal:
    """Of the rows, in the units of `tollkeeper usage`: money in US dollars."""
    if name == "attempts":
        return Decimal(len(rows))
    if name in ("cost", "charge", "exposure"):
        return Decimal(sum(getattr(row, f"{name}_nanousd") for row in rows)).scaleb(-9)
    return Decimal(sum(getattr(row, name) for row in rows))
