"""The DERP wire format, and what is parsed of TLS and websockets. Sans-I/O.

keys           node keys
frames         DERP frames: types, limits, and those that a server sends
login          ClientInfo and ServerInfo in NaCl boxes
gojson         JSON objects, read as Go's encoding/json reads them
trains         trains of SendPacket frames, rewritten in place to RecvPacket frames
forwarding     trains of ForwardPacket frames, to and from other relays
linkframes     what another relay sends over a link
proxyprotocol  the PROXY header before a connection or a datagram
clienthello    the server name and the protocols in a TLS ClientHello
records        where TLS records end
websocket      websocket frames, the server's side of them
control        requests and answers of the control socket
"""
