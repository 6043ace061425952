"""How the fake says no."""

from collections.abc import Mapping


class Refusal(Exception):
    """A request that is refused, in the words and with the code that a client is to see."""

    kept = True
    """Whether the refusal is what an idempotency key answers from now on."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        param: str = "",
        status: int = 400,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.status = status
        self.extra = dict(extra or {})

    def document(self) -> dict[str, object]:
        """The body of the reply."""
        error: dict[str, object] = {"type": "invalid_request_error", "message": self.message}
        if self.code:
            error["code"] = self.code
        if self.param:
            error["param"] = self.param
        return {"error": {**error, **self.extra}}


class Malformed(Refusal):
    """Parameters that do not pass as such: nothing was begun, so a key may be used again."""

    kept = False
