"""`python -m derp` is the command `derper`."""

from derp.cli import script

script()
