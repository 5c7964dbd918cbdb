"""The devices of a tailnet, as Tailscale's API or headscale's lists them.

model          the devices that may use the relay, until when
jsonarray      an array in an answer of any length, element by element         (sans-I/O)
answers        what the answers of both APIs say                               (sans-I/O)
secret         a secret: a value, or a file that may be replaced
api            the differences between both APIs: requests, answers, cures
fetch          fetches the list
kept           the list on disk, for a restart while the API is away
"""
