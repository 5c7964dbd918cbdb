"""How long tests wait, by the wall clock, for what has to come before they take it for a hang.

It measures nothing: a test that is right passes however busy the machine is.
"""

from typing import Final

PATIENCE: Final = 120.0
"""Seconds."""
