"""Two real tailscaled with a relay between them, over an emulated wide-area link."""
