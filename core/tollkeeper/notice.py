"""What operators should hear of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that an operator should hear of, told once when it comes about."""

    kind: str
    """Which, such as `budget_warning`."""
    message: str
    """One line for people."""
    org: str = ""
    """Id of the organization it is about, if it is about one."""
    key: str = ""
    """Id of the virtual key it is about, if it is about one."""
