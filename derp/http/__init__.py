"""The h11 front end: everything that is not DERP frames."""
