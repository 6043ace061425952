"""Deciding where a request goes, and whether it goes again. Pure: chance and time are given."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tollkeeper import Deployment, UpstreamError
from tollkeeper_routing.settings import RoutingSettings


def order(candidates: Sequence[Deployment], random: Random) -> tuple[Deployment, ...]:
    """One deployment chosen by weight, then the others as configured.

    Deployments of weight 0 are never chosen first while another has a weight.
    """
    weights = [deployment.weight for deployment in candidates]
    if len(candidates) < 2 or not any(weights):
        return tuple(candidates)
    first = random.choices(range(len(candidates)), weights)[0]
    rest = [deployment for index, deployment in enumerate(candidates) if index != first]
    return (candidates[first], *rest)


@dataclass(slots=True)
class Plan:
    """The tries of one request: which deployment next, and after what pause."""

    deployments: Sequence[Deployment]
    settings: RoutingSettings
    random: Random
    made: int = 0
    """Tries made so far."""
    index: int = 0
    repeated: int = 0
    """How often the current deployment was tried again."""

    @property
    def current(self) -> Deployment:
        """The deployment to try now."""
        return self.deployments[self.index]

    def after(self, error: UpstreamError, retry_after: float | None) -> float | None:
        """Seconds to wait before the next try, None when there is none.

        A deployment that is at its limit, or whose provider turns us away, is left for the next
        one at once; one that broke is tried again first.
        """
        self.made += 1
        if not error.retryable or self.made >= self.settings.attempts:
            return None
        pause = self._pause() if retry_after is None else retry_after
        may_repeat = self.repeated < self.settings.retries and pause <= self.settings.max_wait
        may_repeat = may_repeat and not error.is_ours
        has_next = self.index + 1 < len(self.deployments)
        if may_repeat and not (error.status == 429 and has_next):
            self.repeated += 1
            return pause
        if has_next:
            self.index += 1
            self.repeated = 0
            return 0.0
        return None

    def _pause(self) -> float:
        longest: float = min(self.settings.max_wait, self.settings.backoff * 2**self.repeated)
        return longest * (0.5 + self.random.random() / 2)
