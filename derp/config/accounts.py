"""The part of the configuration that says where it is kept who has moved how much."""

from pathlib import Path

import attrs

from derp.config.field import file_option


@attrs.frozen(kw_only=True)
class Accounts:
    """The accounts."""

    file: Path | None = file_option(
        "accounts",
        variable="DERP_ACCOUNTS_FILE",
        usage="Keep in this file, a database, how many bytes and packets each node key has moved, "
        "by day; it is made if it does not exist. derper accounts prints it.",
    )
    """None to keep no accounts."""
