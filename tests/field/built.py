"""The proxies that Debian lacks, built by Go: frp, and Caddy with its module layer4.

`python -m tests.field.built` builds them, in minutes; without them, their tests are skipped.
"""

import sys
from pathlib import Path
from typing import Final

from tests.interop.golang import BIN, Module, NoGoError, build

HERE = Path(__file__).resolve().parent
MODULES: Final = (
    Module(
        HERE / "frp",
        BIN / "frp",
        {name: f"github.com/fatedier/frp/cmd/{name}" for name in ("frpc", "frps")},
        # go.sum began as a copy of frp's: the checksum database does not have all that it needs.
    ),
    Module(HERE / "caddy-l4", BIN / "caddy-l4", {"caddy-l4": "./cmd/caddy-l4"}),
)
FOLDERS: Final = [str(module.bin) for module in MODULES]
PROGRAMS: Final = frozenset(name for module in MODULES for name in module.packages)
HOW: Final = "python -m tests.field.built"


def main() -> None:
    try:
        for module in MODULES:
            sys.stdout.writelines(f"{path}\n" for path in build(module).values())
    except NoGoError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
