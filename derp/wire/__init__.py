"""The DERP wire format: pure, bytes in and values out."""
