"""The traffic of each node key by UTC day: bytes, packets and time, kept across restarts.

counts         the counts of one key; days and months                                (sans-I/O)
unwritten      the counts since the last write, bounded                              (sans-I/O)
database       SQL: the tables, their bounds, days folded into months; blocks
file           the file: examined before it is opened, written, left alone when it is unusable
filesink       has it written in a thread
memorysink     in place of the file where none is named
keeper         Accounts, which the relay holds: collects and writes every few seconds
report         what `derper accounts` prints

Bytes are those that TCP has acknowledged, in both directions, as the kernel counts them: with TLS
and the HTTP request, without retransmissions, IP headers and the end of a stream (FIN). Packets are
those that the relay took from the client, and those that it wrote to the client.
"""
