"""A name server in front of pebble's: with the zones of which that one says nothing.

    python dnsfront.py ADDRESS ZONE PORT

On port 53 of ADDRESS it answers SOA, NS and the addresses of ZONE's own name server, and passes
every other question on to 127.0.0.1:PORT; it has authority for all it answers.
"""

import socket
import socketserver
import sys
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

ADDRESS, ZONE, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
OWN = {
    (f"{ZONE}.", "SOA"): f"ns.{ZONE}. hostmaster.{ZONE}. 1 60 60 600 1",
    (f"{ZONE}.", "NS"): f"ns.{ZONE}.",
    (f"ns.{ZONE}.", "A"): ADDRESS,
}


def answer(query: dns.message.Message) -> dns.message.Message:
    name, kind = query.question[0].name.to_text(), dns.rdatatype.to_text(query.question[0].rdtype)
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AA
    if own := OWN.get((name, kind)):
        response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, own))
    elif kind in {"A", "AAAA", "CAA", "CNAME", "TXT"}:
        asked = dns.query.udp(dns.message.make_query(name, kind), "127.0.0.1", 5, PORT)
        response.answer = asked.answer
    if not response.answer:
        soa = dns.rrset.from_text(f"{ZONE}.", 60, "IN", "SOA", OWN[f"{ZONE}.", "SOA"])
        response.authority.append(soa)
    return response


class UDP(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        reply = answer(dns.message.from_wire(data)).to_wire()
        sock.sendto(reply, self.client_address)


class TCP(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        size = int.from_bytes(self.rfile.read(2), "big")
        reply = answer(dns.message.from_wire(self.rfile.read(size))).to_wire()
        self.wfile.write(len(reply).to_bytes(2, "big") + reply)


def serve(server: Any) -> None:
    import threading

    threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    socketserver.TCPServer.allow_reuse_address = True
    socketserver.UDPServer.max_packet_size = 4096
    serve(socketserver.ThreadingUDPServer((ADDRESS, 53), UDP))
    serve(socketserver.ThreadingTCPServer((ADDRESS, 53), TCP))
    print("ready", flush=True)
    with socket.socket() as forever:
        forever.bind(("", 0))
        forever.listen()
        forever.accept()
