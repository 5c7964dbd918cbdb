// Apicheck lists the devices of a tailnet with the client that Tailscale ships
// for its API, to see that what the tests have in place of the API is like it.
//
//	apicheck -url URL -tailnet NAME -id ID -secret SECRET
//	apicheck -url URL -tailnet NAME -key KEY
//
// It prints one JSON line: the devices, or the error and its HTTP status.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/url"
	"os"
	"time"

	tailscale "tailscale.com/client/tailscale/v2"
)

type device struct {
	NodeKey           string
	Authorized        bool
	KeyExpiryDisabled bool
	Expires           time.Time
	Tags              []string
	TailnetLockError  string
}

type answer struct {
	Devices []device
	Error   string
	Status  int
}

func main() {
	base := flag.String("url", "", "where the API is")
	tailnet := flag.String("tailnet", "-", "the name of the tailnet")
	id := flag.String("id", "", "the id of an OAuth client")
	secret := flag.String("secret", "", "its secret")
	key := flag.String("key", "", "an API key")
	times := flag.Int("times", 1, "how often to list")
	flag.Parse()

	parsed, err := url.Parse(*base)
	if err != nil {
		log.Fatal(err)
	}
	client := &tailscale.Client{BaseURL: parsed, Tailnet: *tailnet, APIKey: *key}
	if *id != "" {
		client.Auth = &tailscale.OAuth{
			ClientID: *id, ClientSecret: *secret, Scopes: []string{"devices:core:read"},
		}
	}
	var said answer
	for range *times {
		said = list(client)
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		log.Fatal(err)
	}
}

func list(client *tailscale.Client) answer {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	said := answer{Devices: []device{}}
	found, err := client.Devices().List(ctx)
	if err != nil {
		said.Error = err.Error()
		var refused tailscale.APIError
		if errors.As(err, &refused) {
			said.Status = refused.Status
		}
		return said
	}
	for _, d := range found {
		said.Devices = append(said.Devices, device{
			d.NodeKey, d.Authorized, d.KeyExpiryDisabled, d.Expires.Time, d.Tags, d.TailnetLockError,
		})
	}
	return said
}
