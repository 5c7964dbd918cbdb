"""The files that a relay keeps or reads, in the Go derper's formats.

nodekey        the relay's private node key
meshkey        the mesh key, which the relays of a region share
debugkey       the key that gives access to /debug/ from any address
admintoken     the token with which clients are steered on /debug/
ratelimit      the file of -rate-config: the bytes a second that a client may send
secret         how a small file with a secret is read    (watched: again while the relay runs)
rewrite        how a file that commands edit is replaced
"""
