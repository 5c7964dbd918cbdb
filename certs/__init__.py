"""Certificates: the metacert, self-signed ones and those in files."""
