package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// token is what a library gave.
type token struct {
	jwt     string
	expires time.Time
}

// describe adds what the token says of itself; nobody's signature is checked here.
func (t token) describe(said map[string]any) error {
	parts := strings.Split(t.jwt, ".")
	if len(parts) != 3 {
		return fmt.Errorf("the token is no JWT: it has %d parts", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("the token's claims: %w", err)
	}
	var claims struct {
		AppID string `json:"appid"`
		Azp   string `json:"azp"`
		OID   string `json:"oid"`
		MI    string `json:"xms_mirid"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return fmt.Errorf("the token's claims: %w", err)
	}
	if claims.AppID == "" {
		claims.AppID = claims.Azp
	}
	said["client_id"], said["object_id"], said["mi"] = claims.AppID, claims.OID, claims.MI
	said["expires_on"] = t.expires.Unix()
	return nil
}

func (l library) version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == l.module {
				return l.name + " " + strings.TrimPrefix(module.Version, "v")
			}
		}
	}
	return l.name
}
