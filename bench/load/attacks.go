// Which attacks there are: what is opened, and what is sent then.

package main

import "net"

var attacks = map[string]attack{
	// On TLS.
	"keyupdates":           early(shaken, keyUpdates(0)),
	"keyupdates-asking":    early(shaken, keyUpdates(1)),
	"keyupdates-at-once":   keyUpdatesAtOnce,
	"keyupdates-in-a-head": early(shaken, keyUpdatesWith(endlessHead)),
	"empty-records":        early(shaken, emptyRecords),
	"alerts":               early(shaken, alerts),
	"hellos":               repeated(bare, once(clientHello()), againOnAnswer),
	"hellos-held":          held(bare, once(clientHello())),
	"hellos-claimed":       held(bare, once(claimedHello())),
	"hello-in-pieces":      repeated(bare, inPieces(clientHello()), againOnAnswer),
	"hello-in-records":     repeated(bare, once(splitHello()), againOnAnswer),
	"handshakes":           repeated(shaken, nothing, again),
	"idle":                 held(shaken, nothing),

	// On HTTP.
	"head-in-pieces":  early(shaken, byteWise(endlessHead, 0)),
	"head-in-records": early(shaken, recordWise(endlessHead)),
	"slow-heads":      early(shaken, slowly(endlessHead)),
	"tiny-headers":    early(shaken, endlessly("", tinyHeaders())),
	"requests":        early(shaken, endlessly("", requests())),
	"requests-unread": flood{open: shaken, more: endlessly("", requests()), early: true, unread: true}.attack,
	"body":            early(shaken, endlessly(longBody, full())),
	"body-in-chunks":  early(shaken, endlessly(chunkedBody, packed([]byte("1\r\na\r\n")))),
	"connections":     repeated(bare, nothing, again),
	"closes":          closes(bare),

	// On websockets, before a login.
	"websocket-bytes":     early(websocketed, endlessly("", packed(message(0x80|opBinary, 1)))),
	"websocket-empty":     early(websocketed, endlessly("", packed(message(0x80|opBinary, 0)))),
	"websocket-fragments": early(websocketed, endlessly(string(message(opBinary, 0)), packed(message(opContinuation, 0)))),
	"websocket-pings":     early(websocketed, endlessly("", packed(message(0x80|opPing, 0)))),
	"websocket-claimed":   early(websocketed, endlessly(claimedMessage, full())),

	// On the login.
	"infos-held":      early(upgraded, once(longInfo())),
	"info-in-pieces":  early(upgraded, byteWise(info, mostInfo*7/8)),
	"info-in-records": early(upgraded, recordWise(info)),
	"junk-logins":     repeated(bare, junkLogin, againOnEnd),
	"replays":         replays,
	"strangers":       strangers,

	// By those who may come in.
	"logins":                 repeated(loggedIn, nothing, again),
	"duplicates":             duplicates,
	"keyupdates-in-a-packet": early(loggedIn, keyUpdatesWith(packets)),
	"packets-in-records":     early(loggedIn, recordWise(packets)),
	"pings":                  early(loggedIn, endlessly("", packed(frameOf(framePing, 8)))),
	"pings-unread":           flood{open: loggedIn, more: endlessly("", packed(frameOf(framePing, 8))), early: true, unread: true}.attack,
	"tiny-frames":            early(loggedIn, endlessly("", packed(frameOf(frameUnknown, 0)))),
	"to-nobody":              early(loggedIn, toNobody(nil)),
	"disco-to-nobody":        early(loggedIn, toNobody([]byte(discoMagic))),
	"watching":               repeated(loggedIn, once(frameOf(frameWatchConns, 0)), againOnEnd),
	"leaves":                 closes(loggedIn),
	"gone":                   gone,
	"trickling":              trickling,

	// On the PROXY protocol.
	"proxy-slow-lines":       early(bare, slowly(endlessProxyLine)),
	"proxy-header-in-pieces": repeated(bare, inPieces(longHeader()), againOnEnd),
	"proxy-tlvs":             repeated(bare, once(longHeader()), again),
	"proxy-half-headers":     held(bare, once(longHeader()[:mostHeader])),
	"proxy-clients":          repeated(forClientShaken, nothing, again),
	"proxy-hellos":           repeated(forClient, once(clientHello()), againOnAnswer),
	"proxy-local":            repeated(forNobody, once(clientHello()), againOnAnswer),
	"proxy-lines":            repeated(bare, once(proxyLine(net.IPv4(203, 0, 113, 1))), againOnEnd),

	// On what is for operators.
	"pages":   early(shaken, floodPages()),
	"door":    early(bare, floodDoor()),
	"control": early(bare, floodControl()),

	// On STUN.
	"stun-junk":       datagrams(stunJunk),
	"stun-asked":      datagrams(stunAsked),
	"stun-attributes": datagrams(stunAttributes),
	"stun-proxied":    datagrams(stunProxied),
}

// early has its connections before the attack begins.
func early(open opener, more maker) attack {
	return flood{open: open, more: more, early: true}.attack
}

func held(open opener, more maker) attack { return flood{open: open, more: more}.attack }

func repeated(open opener, more maker, then ending) attack {
	return flood{open: open, more: more, then: then}.attack
}
