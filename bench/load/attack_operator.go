// Attacks on what is for operators: the pages, the metrics door, the control socket. Each is of
// garbage, of requests without end that take the most, of ones too large, and of slow ones.

package main

import "sync/atomic"

const (
	pageRequest   = "GET /debug/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
	eventsRequest = "GET /debug/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
	largeOrder    = "POST /debug/steer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n"
	metrics       = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
	listing       = "{\"v\": 1, \"do\": \"clients\"}\n"
)

// byTurns has each connection send what the next one of them makes.
func byTurns(makers ...maker) maker {
	var turn atomic.Int64
	return func(c *client) func([]byte) []byte {
		return makers[int(turn.Add(1))%len(makers)](c)
	}
}

func floodPages() maker {
	return byTurns(
		endlessly("", packed([]byte(pageRequest))),
		once([]byte(eventsRequest)),
		endlessly(largeOrder, full()),
		endlessly("", full()),
		byteWise(endlessHead, 0),
		slowly(endlessHead),
	)
}

func floodDoor() maker {
	return byTurns(
		endlessly("", packed([]byte(metrics))),
		endlessly(longBody, full()),
		endlessly("", full()),
		byteWise(endlessHead, 0),
		slowly(endlessHead),
	)
}

func floodControl() maker {
	return byTurns(
		endlessly("", packed([]byte(listing))),
		endlessly("", packed([]byte("{}\n"))),
		endlessly("", full()),
		slowly(func() func() byte { return endless("{", ' ') }),
	)
}
