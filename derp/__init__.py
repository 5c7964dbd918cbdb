"""A DERP relay for Tailscale clients."""
