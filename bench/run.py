"""`make bench`: tollkeeper beside others, alternating on one core, load and upstream on another.

Only ratios within one run mean something. Prints Markdown, writes `bench/results.md`.
"""

import contextlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from gateways import BENCH, MONEY, TRANSLATED, UPSTREAM_PORT, Gateway, all_gateways

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))
GATEWAY_CORE, LOAD_CORE = "0", "1"
SMALL = ("You are a helpful assistant. " * 20, "What is the weather? " * 12)
LARGE = ("You are a helpful assistant. " * 270, "What is the weather? " * 12)

Results = dict[str, dict[str, list[float]]]


def pinned(core: str, command: list[str]) -> list[str]:
    """A command that stays on one core."""
    return ["taskset", "-c", core, *command]


def body(model: str, texts: tuple[str, str]) -> str:
    """A chat request."""
    messages = [{"role": r, "content": t} for r, t in zip(("system", "user"), texts, strict=True)]
    return json.dumps({"model": model, "messages": messages, "temperature": 0.7})


def start(gateway: Gateway) -> tuple[float, float]:
    """Start it; seconds until its first answer, and the memory it then takes in MB."""
    began = time.perf_counter()
    gateway.process = subprocess.Popen(
        pinned(GATEWAY_CORE, gateway.command),
        env={**os.environ, **gateway.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_answer(gateway)
    took = time.perf_counter() - began
    time.sleep(1)
    return took, memory(gateway)


def stop(gateway: Gateway) -> None:
    """End it at once."""
    if gateway.process is not None:
        os.killpg(gateway.process.pid, signal.SIGKILL)
        gateway.process.wait()
        gateway.process = None


def wait_answer(gateway: Gateway) -> None:
    """Ask until it answers."""
    began = time.perf_counter()
    request = Request(
        f"http://127.0.0.1:{gateway.port}/v1/chat/completions",
        body("m", SMALL).encode(),
        {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
        | gateway.headers,
    )
    while True:
        with contextlib.suppress(URLError, ConnectionError, TimeoutError):
            with urlopen(request, timeout=20) as reply:
                if json.loads(reply.read())["choices"]:
                    return
        if time.perf_counter() - began > 120:
            raise SystemExit(f"{gateway.name} does not answer")
        time.sleep(0.02)


def processes(gateway: Gateway) -> list[int]:
    """Every process of a gateway."""
    if gateway.process is None:
        return []
    out = subprocess.run(
        ["ps", "-o", "pid=", "-g", str(gateway.process.pid)], capture_output=True, text=True
    )
    return [int(pid) for pid in out.stdout.split()]


def cpu_seconds(gateway: Gateway) -> float:
    """CPU time so far."""
    total = 0
    for pid in processes(gateway):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def memory(gateway: Gateway) -> float:
    """Resident memory in MB."""
    total = 0.0
    for pid in processes(gateway):
        with contextlib.suppress(OSError):
            found = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
            total += int(found[0]) if found else 0  # one that has just ended has none
    return total / 1024


@contextlib.contextmanager
def alone(gateway: Gateway, gateways: list[Gateway]) -> Iterator[None]:
    """All others stand still meanwhile."""
    for other in gateways:
        if other.process is not None:
            sent = signal.SIGCONT if other is gateway else signal.SIGSTOP
            os.killpg(other.process.pid, sent)
    time.sleep(0.2)
    if gateway.process is not None:
        wait_answer(gateway)  # one may still be busy with streams that were given up
    yield


def wrk(
    gateway: Gateway, folder: Path, connections: int, texts: tuple[str, str]
) -> dict[str, float]:
    """Plain calls by wrk."""
    script = folder / "post.lua"
    headers = {"content-type": "application/json", "authorization": f"Bearer {gateway.key}"}
    lines = [f'wrk.headers["{k}"] = "{v}"' for k, v in (headers | gateway.headers).items()]
    text = json.dumps(body("m", texts))
    script.write_text("\n".join(['wrk.method = "POST"', *lines, f"wrk.body = {text}"]))
    before = cpu_seconds(gateway)
    url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
    options = ["-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", str(script), url]
    out = subprocess.run(
        pinned(LOAD_CORE, ["wrk", *options]), capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in out:
        print(f"  {gateway.name}: {re.findall('Non-2xx.*', out)[0]}", file=sys.stderr)
    calls = int(re.findall(r"(\d+) requests in", out)[0])
    cpu = cpu_seconds(gateway) - before
    return {
        "calls/s": float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0]),
        "p50 ms": milliseconds(re.findall(r"\n +50% +(\S+)", out)[0]),
        "p99 ms": milliseconds(re.findall(r"\n +99% +(\S+)", out)[0]),
        "CPU us/call": 1e6 * cpu / max(1, calls),
    }


def milliseconds(text: str) -> float:
    """Wrk's times."""
    number, unit = re.findall(r"([\d.]+)(\D+)", text)[0]
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def load(
    gateway: Gateway, folder: Path, connections: int, seconds: float, model: str
) -> dict[str, float]:
    """Streams by our own load tool."""
    command = [str(folder / "load"), str(gateway.port), gateway.key_and_headers]
    command += [str(connections), str(seconds), model, "0.5", "0"]
    out = subprocess.run(pinned(LOAD_CORE, command), capture_output=True, text=True)
    if out.returncode:
        return {}
    result: dict[str, float] = json.loads(out.stdout)
    if result["errors"]:
        print(f"  {gateway.name}: {result['errors']} errors", file=sys.stderr)
    return result


def measure_translation(gateway: Gateway, gateways: list[Gateway], folder: Path) -> Results:
    """CPU per stream that passes through, and per one that is translated, taking turns."""
    found: Results = defaultdict(lambda: defaultdict(list))
    with alone(gateway, gateways):
        for _ in range(ROUNDS):
            for model in TRANSLATED:
                for name in (model, f"messages-{model}"):
                    before = cpu_seconds(gateway)
                    count = 32 if "burst" in model else 100
                    streams = load(gateway, folder, count, 4, name)["streams_per_s"]
                    took = cpu_seconds(gateway) - before
                    # Warming up for half a second costs too, and is not counted in the rate.
                    found[model][name].append(1e6 * took / (streams * 4.5))
    return found


def translation_table(found: Results) -> str:
    """CPU per stream, side by side."""
    lines = ["### Translated streams (Anthropic's events turned into chat's)", ""]
    lines += ["| stream | CPU us passed through | CPU us translated | ratio |", "|---|---|---|---|"]
    for model, values in found.items():
        passed, turned = values[model], values[f"messages-{model}"]
        cells = f"{spread(passed)} | {spread(turned)} | {ratio(turned, passed)}"
        lines.append(f"| {model} | {cells} |")
    return "\n".join(lines)


def measure_open_streams(gateway: Gateway, folder: Path, count: int) -> dict[str, float]:
    """Memory per open stream, and the lag of its events.

    1,000 are opened in a second, so that their events come at any moment of it.
    """
    before = memory(gateway)
    peak = before
    command = [str(folder / "load"), str(gateway.port), gateway.key_and_headers]
    process = subprocess.Popen(
        pinned(LOAD_CORE, [*command, str(count), "20", "paced100x1000", "12", str(count / 1000)]),
        stdout=subprocess.PIPE,
    )
    while process.poll() is None:
        peak = max(peak, memory(gateway))
        time.sleep(0.5)
    assert process.stdout is not None
    out = process.stdout.read()
    process.stdout.close()
    if process.returncode or not out:
        return {}
    result = json.loads(out)
    return {
        "KiB/stream": 1024 * (peak - before) / count,
        "lag p50 ms": result["lag_p50_ms"],
        "lag p99 ms": result["lag_p99_ms"],
        "events/s": result["events_per_s"],
        "errors": result["errors"],
    }


Scenario = tuple[str, Callable[[Gateway, Path], dict[str, float]]]
SCENARIOS: list[Scenario] = [
    ("plain, 1 connection", lambda g, f: wrk(g, f, 1, SMALL)),
    ("plain, 32 connections", lambda g, f: wrk(g, f, 32, SMALL)),
    ("plain, 128 connections", lambda g, f: wrk(g, f, 128, SMALL)),
    ("8 KiB, 32 connections", lambda g, f: wrk(g, f, 32, LARGE)),
    ("32 streams, 60 events in a burst", lambda g, f: load(g, f, 32, SECONDS, "burst60")),
    ("100 streams, 20 ms per event", lambda g, f: load(g, f, 100, 4, "paced60x20")),
    ("1,000 streams, 20 ms per event", lambda g, f: load(g, f, 1000, 5, "paced60x20")),
]


def measure_all(gateways: list[Gateway], folder: Path) -> dict[str, Results]:
    """Every scenario, the gateways taking turns, round after round."""
    found: dict[str, Results] = {n: defaultdict(lambda: defaultdict(list)) for n, _ in SCENARIOS}
    for number in range(ROUNDS):
        for name, measure in SCENARIOS:
            for gateway in gateways:
                if gateway.name == ("Portkey" if "streams" in name else "Portkey, streams"):
                    continue
                print(f"round {number + 1}: {name}: {gateway.name}", file=sys.stderr)
                with alone(gateway, gateways):
                    for key, value in measure(gateway, folder).items():
                        found[name][gateway.name][key].append(value)
    return found | measure_open(gateways, folder)


def measure_open(gateways: list[Gateway], folder: Path) -> dict[str, Results]:
    """Many open streams, once each: it takes long and needs no median."""
    found: dict[str, Results] = {}
    for count in (1000, 5000):
        name = f"{count:,} open streams, 1 event per second"
        found[name] = defaultdict(lambda: defaultdict(list))
        for gateway in gateways[1:]:
            if gateway.name in ("Portkey", MONEY):
                continue
            if count > 1000 and gateway.name in ("LiteLLM", "stock forwarder"):
                continue  # they do not get there
            print(f"{name}: {gateway.name}", file=sys.stderr)
            stop(gateway)  # memory that earlier load left behind would hide what streams take
            with alone(gateway, gateways):
                start(gateway)
                for key, value in measure_open_streams(gateway, folder, count).items():
                    found[name][gateway.name][key].append(value)
    return found


def measure_idle_pool(gateway: Gateway, gateways: list[Gateway], folder: Path) -> list[float]:
    """CPU per call with 10 and with 1,000 idle upstream connections behind it."""
    costs = []
    with alone(gateway, gateways):
        for connections in (10, 1000, 10, 1000, 10, 1000):
            wrk(gateway, folder, connections, SMALL)
            time.sleep(0.5)  # until the clients that filled the pool are gone, and it still is full
            costs.append(wrk(gateway, folder, 8, SMALL)["CPU us/call"])
    return costs


def table(name: str, results: Results) -> str:
    """One scenario: ratios to tollkeeper first, then medians with their spread."""
    own = results.get("tollkeeper", {})
    keys = list(own)
    lines = [f"### {name}", "", "| | " + " | ".join(f"{k}, tollkeeper's is" for k in keys[:2])]
    lines[-1] += " | " + " | ".join(keys) + " |"
    lines.append("|" + "---|" * (1 + len(keys[:2]) + len(keys)))
    for gateway, values in results.items():
        ratios = [
            "" if gateway == "tollkeeper" else ratio(own.get(k, []), values.get(k, []))
            for k in keys[:2]
        ]
        cells = [spread(values.get(k, [])) for k in keys]
        lines.append(f"| {gateway} | " + " | ".join(ratios + cells) + " |")
    return "\n".join(lines)


def money_table(results: Results) -> str:
    """What exact money costs, at 32 connections."""
    own, plain = results[MONEY], results["tollkeeper"]
    stock = results.get("stock forwarder", {})
    added = [a - b for a, b in zip(own["CPU us/call"], plain["CPU us/call"], strict=True)]
    lines = ["### Metering and budgets on, 32 connections", ""]
    for name in ("stock forwarder", "LiteLLM", "Portkey", "sglang-router"):
        if name in results:
            calls = ratio(own["calls/s"], results[name]["calls/s"])
            cpu = ratio(own["CPU us/call"], results[name]["CPU us/call"])
            lines.append(f"- {name}: {calls} its calls per second, {cpu} its CPU per call")
    if stock:
        share = statistics.median(stock["CPU us/call"]) / statistics.median(added)
        lines.append(
            f"- metering and budgets together: {statistics.median(added):.1f} us a call,"
            f" 1/{share:.1f} of the stock forwarder's {statistics.median(stock['CPU us/call']):.0f}"
        )
    return "\n".join(lines)


def ratio(own: list[float], other: list[float]) -> str:
    """How many times the other's ours is."""
    if not own or not other or not statistics.median(other):
        return "-"
    return f"{statistics.median(own) / statistics.median(other):.2f} x"


def spread(values: list[float]) -> str:
    """Median, and the range of all rounds."""
    if not values:
        return "-"
    middle = statistics.median(values)
    if len(values) == 1:
        return f"{middle:,.4g}"
    return f"{middle:,.4g} ({min(values):,.4g} to {max(values):,.4g})"


def main() -> None:
    """Build, start, measure, report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for tool in ("upstream", "load"):
            source = str(BENCH / f"{tool}.c")
            subprocess.run(["cc", "-O2", "-o", str(folder / tool), source], check=True)
        upstream = subprocess.Popen(
            pinned(LOAD_CORE, [str(folder / "upstream"), str(UPSTREAM_PORT)])
        )
        gateways = all_gateways(folder)
        starts: Results = defaultdict(lambda: defaultdict(list))
        try:
            for gateway in gateways:
                if not gateway.command:
                    continue
                with alone(gateway, gateways):
                    took, idle = start(gateway)
                starts[gateway.name]["start-up s"].append(took)
                starts[gateway.name]["idle MB"].append(idle)
            found = {"Start-up and idle memory": starts, **measure_all(gateways, folder)}
            pool = measure_idle_pool(gateways[1], gateways, folder)
            translation = measure_translation(gateways[1], gateways, folder)
        finally:
            for gateway in gateways:
                stop(gateway)
            upstream.kill()
    few, many = statistics.median(pool[::2]), statistics.median(pool[1::2])
    report = "\n\n".join(
        [
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"{ROUNDS} rounds of {SECONDS} s, {time.strftime('%Y-%m-%d')}",
            *(table(name, results) for name, results in found.items()),
            money_table(found["plain, 32 connections"]),
            translation_table(translation),
            "### Idle upstream connections\n\n"
            f"CPU per call with 1,000 of them is {many / few:.2f} x that with 10 "
            f"({many:.0f} and {few:.0f} us).",
        ]
    )
    (BENCH / "results.md").write_text(report + "\n")
    print(report)


if __name__ == "__main__":
    main()
