"""The DERP wire format, and what of TLS and websockets is read here. Sans-I/O.

keys           node keys
frames         DERP frames: types, limits, and those that a server sends
login          ClientInfo and ServerInfo in NaCl boxes
gojson         JSON objects, read as Go's encoding/json reads them
trains         SendPacket frames, rewritten in place to trains of RecvPacket frames
forwarding     the same as ForwardPacket frames, for other relays
linkframes     what another relay sends over a link
clienthello    what a TLS client asks for
records        where TLS records end
websocket      websocket frames, the server's side of them
"""
