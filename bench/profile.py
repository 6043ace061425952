"""`make bench-profile`: where the time of a plain call goes, by module, system call and plugin.

The profiler makes everything slower, so what it says are shares. What plugins add is measured
without it, in CPU time of the gateway, sets taking turns.
"""

import os
import pstats
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from gateways import BENCH, UPSTREAM_PORT, Gateway, tollkeeper
from run import SMALL, cpu_seconds, pinned, start, wrk

ROUNDS = 3
PLUGINS = ("keys", "limits", "routing", "metering", "budgets")


def stop(gateway: Gateway) -> None:
    """End it in its own good time."""
    assert gateway.process is not None
    os.killpg(gateway.process.pid, signal.SIGTERM)
    gateway.process.wait()
    gateway.process = None


def by_module(folder: Path) -> str:
    """Own time per module, in per cent of all but waiting."""
    gateway = tollkeeper(folder)
    profile = folder / "profile"
    serve = gateway.command[3:]
    gateway.command = [
        *[sys.executable, "-m", "cProfile", "-o", str(profile), "-m", "tollkeeper"],
        *serve,
    ]
    start(gateway)
    wrk(gateway, folder, 32, SMALL)
    stop(gateway)
    times: Counter[str] = Counter()
    for (file, _, function), (_, _, own, _, _) in pstats.Stats(str(profile)).stats.items():  # type: ignore[attr-defined]
        if "epoll" not in function and "_io.open_code" not in function:
            times[module_of(file, function)] += own
    total = sum(times.values())
    rows = [f"| {name} | {100 * t / total:.1f} % |" for name, t in times.most_common(24)]
    return "\n".join(["| where | share of CPU |", "|---|---|", *rows])


def module_of(file: str, function: str) -> str:
    """A name to group by."""
    if file == "~":
        socket = re.search(r"method '(send|recv)' of '_socket", function)
        return f"system call {socket.group(1)}" if socket else "built-in functions"
    path = Path(file)
    for package in ("tollkeeper", "trio", "msgspec", "httptools", "hypercorn"):
        if package in path.parts or any(p.startswith(f"{package}_") for p in path.parts):
            if package != "tollkeeper":
                return package
            at = next(i for i, p in enumerate(path.parts) if p.startswith("tollkeeper"))
            return ".".join([*path.parts[at:-1], path.stem])
    return "the standard library"


def system_calls(folder: Path) -> str:
    """System calls per call, counted by strace where it is installed."""
    if shutil.which("strace") is None:
        return "strace is not installed."
    gateway = tollkeeper(folder)
    start(gateway)
    assert gateway.process is not None
    out = folder / "strace"
    tracer = subprocess.Popen(["strace", "-c", "-f", "-o", out, "-p", str(gateway.process.pid)])
    time.sleep(0.5)
    before = cpu_seconds(gateway)
    calls = wrk(gateway, folder, 32, SMALL)["calls/s"] * 3
    assert cpu_seconds(gateway) > before
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    stop(gateway)
    rows = ["| system call | per call |", "|---|---|"]
    for line in out.read_text().splitlines():
        fields = line.split()
        counted = len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total"
        if counted and int(fields[3]) > calls / 50:
            rows.append(f"| {fields[-1]} | {int(fields[3]) / calls:.2f} |")
    return "\n".join(rows)


def cost_of_plugins(folder: Path) -> str:
    """CPU per call with more and more plugins on."""
    found: dict[int, list[float]] = {count: [] for count in range(len(PLUGINS) + 1)}
    for _ in range(ROUNDS):
        for count, values in found.items():
            gateway = tollkeeper(folder, money=True)
            config = Path(gateway.command[-1])
            text = config.read_text()
            for name in PLUGINS[count:]:
                text = text.replace(f"[plugins.{name}]\n", f"[plugins.{name}]\nenabled = false\n")
            config.write_text(text)
            start(gateway)
            wrk(gateway, folder, 32, SMALL)
            values.append(wrk(gateway, folder, 32, SMALL)["CPU us/call"])
            stop(gateway)
    rows = ["| plugins on, beside openai | CPU us per call |", "|---|---|"]
    for count, values in found.items():
        names = ", ".join(PLUGINS[:count]) or "none"
        spread = f"{min(values):.0f} to {max(values):.0f}"
        rows.append(f"| {names} | {statistics.median(values):.0f} ({spread}) |")
    return "\n".join(rows)


def main() -> None:
    """Print the three tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = str(BENCH / "upstream.c")
        subprocess.run(["cc", "-O2", "-o", str(folder / "upstream"), source], check=True)
        upstream = subprocess.Popen(pinned("1", [str(folder / "upstream"), str(UPSTREAM_PORT)]))
        try:
            for part in (by_module, system_calls, cost_of_plugins):
                print(part(folder), end="\n\n")
        finally:
            upstream.kill()


if __name__ == "__main__":
    main()
