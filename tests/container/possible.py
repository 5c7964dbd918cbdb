"""Says whether podman runs containers here, and on which base image: exit code 0, or 1 and why not.

python -m tests.container.possible
"""

import sys

from tests.container import images
from tests.container.podman import NoPodmanError

if __name__ == "__main__":
    try:
        podman, base = images.find()
    except (NoPodmanError, images.WrongBaseError) as error:
        sys.exit(f"possible: {error}")
    print(f"podman works, with {base}")
