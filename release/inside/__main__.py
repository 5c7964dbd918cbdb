"""Start derper.pyz. Any Python can read this file: the others are for those that will do."""
# ruff: noqa: UP031, UP036

import sys

if sys.version_info < (3, 11):
    sys.stderr.write(
        "derper.pyz: %s is Python %d.%d; start this with Python 3.11 or later\n"
        % (sys.executable, sys.version_info[0], sys.version_info[1])
    )
    sys.exit(1)

from unpack import main  # type: ignore[import-not-found]

main()
