"""`python -m derp` is the command `derper`."""

import sys

from derp.cli import main

sys.exit(main())
