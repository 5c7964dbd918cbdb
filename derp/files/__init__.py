"""What is kept on disk, in the Go derper's formats.

nodekey        the relay's private node key
meshkey        the key that the relays of a region share
debugkey       the key that opens /debug/ from anywhere
ratelimit      the file of -rate-config
secret         reads a small file that holds a secret
"""
