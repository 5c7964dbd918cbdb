"""The files that a relay keeps or reads, in the Go derper's formats.

nodekey        the relay's private node key
meshkey        the mesh key, which the relays of a region share
debugkey       the key that opens /debug/ from anywhere
ratelimit      the file of -rate-config: how much a client may send
secret         reading a small file that holds a secret
"""
