"""The first code that runs: refuses a system on which the rest can't even be imported."""

import sys
from typing import NoReturn


def script() -> NoReturn:
    """Run the command, where there is a system for it; end the process with its exit code."""
    if sys.platform == "win32":
        sys.exit("derper: Windows can't run the relay; use Linux, WSL 2 or a container")
    from derp.cli.main import script as run  # noqa: PLC0415 -- loads what Windows lacks

    run()
