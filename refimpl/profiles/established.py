"""On which versions and processors a profile was held against its runtime."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Established:
    """What a profile was held against, value by value.

    ``package`` is the runtime's distribution. Each of ``versions`` stands for all that begin with it
    (``1.32`` for 1.32.0 and 1.32.1); the last is the newest. ``processors`` says on which.
    """

    package: str
    versions: tuple[str, ...]
    processors: tuple[str, ...]

    def covers(self, version: str) -> bool:
        """Whether ``version`` is one of ``versions``, or a later release of one."""
        return any(f"{version}.".startswith(f"{known}.") for known in self.versions)

    @property
    def remedy(self) -> str:
        """How to install the newest version."""
        newest = self.versions[-1]
        pinned = newest if newest.count(".") > 1 or "dev" in newest else f"{newest}.*"
        return f"pip install '{self.package}=={pinned}'"

    def __str__(self) -> str:
        return f"{self.package} {' and '.join(self.versions)} on {', '.join(self.processors)}"
