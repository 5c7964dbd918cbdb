"""Requests answered a batch at a time: one system call receives them, one sends the responses."""

import socket

from stun.batch import IPV4, IPV6, Batch, answered_ranges
from stun.mmsg import BatchSocket
from stun.stats import Stats


class BatchedResponder:
    """A responder on one socket that never waits; see PlainResponder."""

    def __init__(self, sock: socket.socket, stats: Stats) -> None:
        self.senders: list[tuple[bytes, bytes]] = []
        """As in PlainResponder, but only the first datagram's sender, if that was answered."""
        self._batch = Batch(IPV6 if sock.family == socket.AF_INET6 else IPV4)
        self._batch_socket = BatchSocket(sock, self._batch)
        self._stats = stats

    def answer(self) -> int:
        """Answer up to CAPACITY datagrams that have arrived; see PlainResponder."""
        lengths = self._batch_socket.receive()
        answered = self._batch.answer(lengths)
        self.senders = [self._batch.first_sender()] if answered[0] else []
        stats = self._stats
        valid = answered.count(True)
        stats.not_stun += len(lengths) - valid
        if self._batch.family is IPV6:
            stats.ipv6 += valid
        else:
            stats.ipv4 += valid
        for first, stop in answered_ranges(answered):
            self._send(first, stop)
        return len(lengths)

    def _send(self, first: int, stop: int) -> None:
        while first < stop:
            try:
                sent = self._batch_socket.send(first, stop)
            except OSError:
                # What can't be sent is lost, as UDP may lose it anyway: the client asks again.
                self._stats.write_error += 1
                first += 1
            else:
                self._stats.success += sent
                first += sent
