"""What is kept on disk, in the Go derper's forms.

nodekey        the private key of the relay
meshkey        the key that the relays of a region share
debugkey       the key that opens /debug/ from anywhere
ratelimit      the file of -rate-config
secret         reading a small file with a secret
"""
