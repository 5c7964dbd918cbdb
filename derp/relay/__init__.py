"""What a relay decides: who is connected, what is queued, what is dropped. Pure."""
