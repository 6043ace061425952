"""The newest openai SDK for Node, changed in nothing but `baseURL` and key."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from processes import Demo, need

NODE = Path(__file__).parent.parent / "node"
ANSWER = "This is tollkeeper's offline demo provider. You said: hello"


@pytest.mark.parametrize("sdk", ["openai6", "openai7"])
def test_openai_node(demo: Demo, sdk: str) -> None:
    need("node")
    if not (NODE / "node_modules" / sdk).is_dir():
        reason = "the openai SDKs for node are not installed: make tools"
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    result = subprocess.run(
        ["node", "story.mjs", sdk, demo.base_url, demo.key],
        cwd=NODE,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert seen == {
        "plain": ANSWER,
        "stream": ANSWER,
        "accumulated": ANSWER,
        "usage": 13,
        "models": ["demo"],
        "model": {"input": 0.15, "output": 0.6},
        "cut": 1,
        "errors": {
            "context": ["BadRequestError", 400, "context_length_exceeded"],
            "filter": ["BadRequestError", 400, "content_filter"],
            "rate_limit": ["RateLimitError", 429, "rate_limit"],
            "server_error": ["InternalServerError", 502, "server_error"],
            "timeout": ["InternalServerError", 504, "timeout"],
            "model": ["NotFoundError", 404, "model_not_found"],
            "key": ["AuthenticationError", 401, "auth_error"],
            "cut": ["APIError", None, "server_error"],
        },
    }
