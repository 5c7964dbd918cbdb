"""The command `derper`, as `python -m derp`."""

from derp.cli.main import script

script()
