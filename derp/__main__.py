"""The command `derper`, as `python -m derp`."""

from derp.cli.entry import script

script()
