"""What can go wrong with a world."""

from __future__ import annotations


class ScenarioError(RuntimeError):
    """A scenario that cannot be set up; the message says which actor and where."""


class WorldError(RuntimeError):
    """The simulator does not answer as it should; the message says what was asked."""
