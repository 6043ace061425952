"""The exact sliding log. Pure: it is told the time and never asks for it."""

from collections import deque
from math import inf

WINDOW = 60.0


class Place:
    """One admitted request in a log, which it can be taken out of again."""

    __slots__ = ("_log", "leaves", "taken")

    def __init__(self, log: "SlidingLog", leaves: float) -> None:
        self._log = log
        self.leaves = leaves
        """When it is out of the window."""
        self.taken = True

    def give_back(self) -> None:
        """Take out a request that never went upstream. Safe once it left the window, or twice."""
        if self.taken:
            self.taken = False
            self._log.forget(self)


class SlidingLog:
    """Admits at most `limit` in any 60 seconds, and refuses only when `limit` were admitted."""

    def __init__(self) -> None:
        self._places: deque[Place] = deque()
        self.taken = 0
        """Places taken, those included that have left the window unnoticed."""

    def admit(self, limit: int, now: float) -> Place | None:
        """A place in the window, or None when it is full."""
        if self.count(now) >= limit:
            return None
        place = Place(self, now + WINDOW)
        self._places.append(place)
        self.taken += 1
        return place

    def forget(self, place: Place) -> None:
        """Take note that a place is no longer taken; places at the end are dropped at once."""
        self.taken -= 1
        while self._places and self._places[-1] is place:
            self._places.pop()
            if self._places and not self._places[-1].taken:
                place = self._places[-1]

    def count(self, now: float) -> int:
        """Requests admitted in the 60 seconds up to `now`."""
        places = self._places
        while places and (not places[0].taken or places[0].leaves <= now):
            places.popleft().give_back()
        return self.taken

    def wait(self, limit: int, now: float) -> float:
        """Seconds until a request would pass, 0 when it would now."""
        excess = self.count(now) - limit
        if excess < 0:
            return 0.0
        for place in self._places:
            if place.taken:
                if excess == 0:
                    return place.leaves - now
                excess -= 1
        return inf  # a limit below 1, which the settings refuse

    def reset(self, now: float) -> float:
        """Seconds until the window is empty, if nothing else is admitted."""
        self.count(now)
        for place in reversed(self._places):
            if place.taken:
                return place.leaves - now
        return 0.0
