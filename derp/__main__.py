"""`python -m derp` is the command `derper`."""

from derp.cli.main import script

script()
