"""`make torture`: everything at length. Prints its seed first, and exits 1 when money is wrong.

With the same seed the same calls are made, and the same lives lived, as far as clocks allow.
"""

import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from torture import budget, disconnects, failpoints, faults, gateway, kills
from torture.invariants import Verdict

Scenario = Callable[[Path], Awaitable[Verdict | None]]


@dataclass(frozen=True)
class Lengths:
    """How long it all goes on."""

    kills: int = 200
    calls: int = 100_000
    times: int = 20
    """Deaths at each fail-point."""
    stride: int = 1
    """Bytes from one cut of a stream to the next."""
    locked: float = 30.0
    """Seconds."""


def scenarios(seed: int, lengths: Lengths) -> dict[str, Scenario]:
    """All of them, by name."""
    found: dict[str, Scenario] = {
        "kills": partial(kills.kills, seed=seed, count=lengths.kills, calls=lengths.calls)
    }
    found["budget"] = partial(budget.budget, seed=seed, count=min(lengths.kills, 20))
    found["balance"] = partial(budget.balance, seed=seed, count=min(lengths.kills, 20))
    for point in gateway.POINTS:
        found[f"failpoint-{point}"] = partial(
            failpoints.failpoint, seed=seed, name=point, times=lengths.times
        )
    for policy in disconnects.POLICIES:
        found[f"disconnects-{policy}"] = partial(
            disconnects.disconnects, policy=policy, stride=lengths.stride
        )
    found["stopped"] = partial(faults.stopped, seed=seed, seconds=5.0)
    found["disk-full"] = partial(faults.disk_full, seed=seed, seconds=5.0)
    found["locked"] = partial(faults.locked, seed=seed, seconds=lengths.locked)
    found["odd-usages"] = partial(faults.odd_usages, seed=seed, calls=2_000)
    return found


def run(name: str, scenario: Scenario, folder: Path) -> bool:
    """One scenario, and its line. Whether all was well."""
    began = time.monotonic()
    try:
        verdict = trio.run(scenario, folder / name)
    except (AssertionError, RuntimeError, ExceptionGroup) as error:  # no verdict can be given
        click.echo(f"{name}: FAILED: {error!r}")
        return False
    took = time.monotonic() - began
    if verdict is None:
        click.echo(f"{name}: skipped, for this machine does not let us mount a tmpfs")
        return True
    word = "ok" if verdict.ok else "FAILED"
    click.echo(f"{name}: {word} in {took:.0f} s: {verdict}")
    return verdict.ok


@click.command(help=__doc__)
@click.option("--seed", type=int, help="Of an earlier run.")
@click.option("--kills", default=Lengths.kills, show_default=True)
@click.option("--calls", default=Lengths.calls, show_default=True)
@click.option("--times", default=Lengths.times, show_default=True, help="Deaths per fail-point.")
@click.option("--stride", default=Lengths.stride, show_default=True, help="Bytes between cuts.")
@click.option("--locked", default=Lengths.locked, show_default=True, help="Seconds.")
@click.option("--only", multiple=True, help="Scenarios whose name begins like this.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, resolve_path=True),
    help="A new folder for what is written.",
)
def main(seed: int | None, only: tuple[str, ...], keep: Path | None, **lengths: float) -> None:
    """Run what is asked for."""
    seed = random.SystemRandom().randrange(10**9) if seed is None else seed
    click.echo(f"seed {seed}")
    chosen = scenarios(seed, Lengths(**lengths))  # type: ignore[arg-type] # as declared above
    if only:
        chosen = {name: run for name, run in chosen.items() if name.startswith(only)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        results = [run(name, scenario, folder) for name, scenario in chosen.items()]
    click.echo(f"{sum(results)} of {len(results)} scenarios ok, seed {seed}")
    sys.exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
