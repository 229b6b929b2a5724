package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// An empty body that Go's transport cannot prove to be empty: otherwise it would silently send a
// request again when a kept connection turns out to be closed, and hide what is looked for.
type once struct{}

func (once) Read([]byte) (int, error) { return 0, io.EOF }
func (once) Close() error             { return nil }

// answer sends one request; an empty kind is a token of the wanted identity.
func answer(ctx context.Context, client *http.Client, address, want string) (kind, detail string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, once{})
	if err != nil {
		return "bad request", err.Error()
	}
	request.Header.Set("Metadata", "true")
	response, err := client.Do(request)
	if err != nil {
		return kindOf(err), err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return kindOf(err), "in the body: " + err.Error()
	}
	if response.StatusCode != http.StatusOK {
		// An error answer holds no token.
		return fmt.Sprintf("status %d", response.StatusCode), string(body[:min(len(body), 300)])
	}
	got, end, err := claimsOf(body)
	if err != nil {
		return "not understood", err.Error()
	}
	if late := time.Since(end); late > 0 {
		return "past its end", "since " + late.String()
	}
	if want != "" && !strings.EqualFold(got, want) {
		return "wrong identity", got
	}
	return "", ""
}

// claimsOf gives whose token it is, and its end.
func claimsOf(body []byte) (string, time.Time, error) {
	var never time.Time
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", never, errors.New("the answer is not JSON")
	}
	parts := strings.Split(answer.AccessToken, ".")
	if len(parts) != 3 {
		return "", never, errors.New("access_token is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", never, errors.New("the token's claims are not base64")
	}
	var claims struct {
		AppID string `json:"appid"`
		Azp   string `json:"azp"`
		Exp   int64  `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", never, errors.New("the token's claims are not JSON")
	}
	end := time.Unix(claims.Exp, 0)
	if claims.AppID == "" {
		return claims.Azp, end, nil
	}
	return claims.AppID, end, nil
}

func kindOf(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		strings.Contains(err.Error(), "server closed idle connection"):
		return "closed without an answer"
	}
	return "other"
}
