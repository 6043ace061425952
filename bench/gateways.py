"""Each gateway that is measured: how it is started, and what its clients send.

Peers live in `bench/.peers`, put there by `make bench-peers`; one that is missing is left out.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

BENCH = Path(__file__).parent
PEERS = BENCH / ".peers"
MODELS = ("m", "burst60", "paced60x20", "paced100x1000")
TRANSLATED = ("burst60", "paced60x20")
"""Models that tollkeeper also offers as `messages-NAME`, from an upstream of another dialect."""
UPSTREAM_PORT = 9900
UPSTREAM = f"http://127.0.0.1:{UPSTREAM_PORT}"


@dataclass
class Gateway:
    """One gateway under measurement."""

    name: str
    port: int
    command: list[str]
    key: str = "sk-bench"
    headers: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def key_and_headers(self) -> str:
        """What follows `authorization: Bearer `, further headers included."""
        return self.key + "".join(f"\r\n{k}: {v}" for k, v in self.headers.items())


MONEY = "tollkeeper with metering and budgets"


def tollkeeper(folder: Path, *, money: bool = False) -> Gateway:
    """Tollkeeper with keys, limits and routing on; with `money` metering and budgets too."""
    models = "".join(
        f'[models.{m}]\ndeployments = [{{ provider = "up", model = "{m}" }}]\n'
        f'price = {{ input = "0.15", output = "0.60" }}\nmax_output = 1000\n'
        for m in MODELS
    )
    models += "".join(
        f'[models.messages-{m}]\ndeployments = [{{ provider = "other", model = "{m}" }}]\n'
        for m in TRANSLATED
    )
    name, port = ("money", 8108) if money else ("tollkeeper", 8101)
    config = folder / f"{name}.toml"
    config.write_text(
        f'[server]\nbind = "127.0.0.1:{port}"\nmax_connections = 20000\n'
        f'[storage]\nurl = "sqlite:///{name}.db"\n'
        f'[providers.up]\nkind = "openai"\nbase_url = "{UPSTREAM}/v1"\ncredential = "sk-x"\n'
        f'[providers.other]\nkind = "anthropic"\nbase_url = "{UPSTREAM}"\ncredential = "sk-x"\n'
        f"{models}[plugins.keys]\n[plugins.limits]\nrpm = 1000000\n[plugins.routing]\n"
        "[plugins.openai]\n[plugins.anthropic]\n" + (_MONEY if money else "")
    )
    command = [sys.executable, "-m", "tollkeeper"]
    create = ["keys", "create", "--name", "bench", "--rpm", "1000000", "--json"]
    made = subprocess.run(
        [*command, *create, "--config", str(config)], check=True, capture_output=True, text=True
    )
    key = json.loads(made.stdout)["key"]
    serve = [*command, "serve", "--config", str(config)]
    return Gateway(MONEY if money else "tollkeeper", port, serve, key)


_MONEY = """
[plugins.metering]
[plugins.budgets]
limits = [
    { scope = "key", amount = "1000000", period = "day" },
    { scope = "org", amount = "1000000", period = "month" },
]
"""


def stock() -> Gateway:
    """The stock Quart-Trio and httpx forwarder."""
    command = [sys.executable, str(BENCH / "stock.py"), "8102", f"{UPSTREAM}/v1", "sk-bench"]
    return Gateway("stock forwarder", 8102, command)


def litellm(folder: Path) -> Gateway | None:
    """LiteLLM's proxy, without a database."""
    program = PEERS / "litellm" / "bin" / "litellm"
    if not program.exists():
        return None
    models = [
        {
            "model_name": m,
            "litellm_params": {
                "model": f"openai/{m}",
                "api_base": f"{UPSTREAM}/v1",
                "api_key": "sk-x",
            },
        }
        for m in MODELS
    ]
    config = folder / "litellm.yaml"
    document = {"model_list": models, "general_settings": {"master_key": "sk-bench"}}
    config.write_text(json.dumps(document))  # JSON is YAML
    command = [str(program), "--config", str(config), "--port", "8103", "--host", "127.0.0.1"]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "0"}
    return Gateway("LiteLLM", 8103, [*command, "--num_workers", "1"], env=env)


def portkey(*, streams: bool = False) -> Gateway | None:
    """Portkey's open-source gateway; it forwards the key and checks none.

    For streams it gets a process of its own, without the part that makes it refuse them.
    """
    script = PEERS / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    if not script.exists() or shutil.which("node") is None:
        return None
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{UPSTREAM}/v1"}
    env = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    port = 8107 if streams else 8104
    node = ["node", "--import", str(BENCH / "portkey.mjs")] if streams else ["node"]
    return Gateway(
        "Portkey, streams" if streams else "Portkey",
        port,
        [*node, str(script), f"--port={port}", "--headless"],
        headers=headers,
        env=env,
    )


def sglang() -> Gateway | None:
    """sglang-router, compiled from Rust."""
    python = PEERS / "sglang" / "bin" / "python"
    if not python.exists():
        return None
    command = [str(python), "-m", "sglang_router.launch_router", "--worker-urls", UPSTREAM]
    command += ["--host", "127.0.0.1", "--port", "8105", "--policy", "round_robin"]
    command += ["--prometheus-port", "8195", "--log-level", "error"]
    return Gateway("sglang-router", 8105, command)


def nginx(folder: Path) -> Gateway | None:
    """Nginx as a reverse proxy with a key check, one worker."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not os.path.exists(program):
        return None
    config = folder / "nginx.conf"
    config.write_text(f"""
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 30000; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000;
  upstream up {{ server 127.0.0.1:{UPSTREAM_PORT}; keepalive 256; }}
  server {{
    listen 127.0.0.1:8106 backlog=4096;
    location / {{
      if ($http_authorization != "Bearer sk-bench") {{ return 401; }}
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
""")
    return Gateway("nginx", 8106, [program, "-p", str(folder), "-c", str(config)])


def all_gateways(folder: Path) -> list[Gateway]:
    """Those that can be started here, and none at all, for what load and upstream take."""
    direct = Gateway("no gateway", UPSTREAM_PORT, [])
    found = [
        direct,
        tollkeeper(folder),
        tollkeeper(folder, money=True),
        stock(),
        litellm(folder),
        portkey(),
        portkey(streams=True),
        sglang(),
        nginx(folder),
    ]
    return [gateway for gateway in found if gateway is not None]
