// The Azure SDK for Go, as a program in a pod uses it.
//
// In: `token [--client-id ID] [--resource R]` or `secret --vault URL --name N [--client-id ID]`;
// the file in SSL_CERT_FILE says whom to trust. Out: one JSON object; never a token. A failure is
// the SDK's own message and exit code 1. Blocks on the SDK's requests, two minutes at most.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

const sdk = "github.com/Azure/azure-sdk-for-go/sdk/azidentity"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: client go token|secret [flags]")
	}
	flags := flag.NewFlagSet("client go", flag.ExitOnError)
	clientID := flags.String("client-id", "", "client id of a user-assigned identity")
	resource := flags.String("resource", "https://vault.azure.net", "what the token is for")
	vault := flags.String("vault", "", "the vault's URL")
	name := flags.String("name", "", "the secret's name")
	_ = flags.Parse(args[1:])

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	credential, err := credential(*clientID)
	if err != nil {
		return err
	}
	switch args[0] {
	case "token":
		scope := policy.TokenRequestOptions{Scopes: []string{*resource + "/.default"}}
		token, err := credential.GetToken(ctx, scope)
		if err != nil {
			return err
		}
		return printClaims(token)
	case "secret":
		client, err := azsecrets.NewClient(*vault, credential, nil)
		if err != nil {
			return err
		}
		secret, err := client.GetSecret(ctx, *name, "", nil)
		if err != nil {
			return err
		}
		return printJSON(map[string]any{"client": version(), "value": *secret.Value})
	}
	return fmt.Errorf("%s: token or secret", args[0])
}

// credential is what users write: the default chain, or one identity by its client id.
func credential(clientID string) (azcore.TokenCredential, error) {
	if clientID == "" {
		return azidentity.NewDefaultAzureCredential(nil)
	}
	options := azidentity.ManagedIdentityCredentialOptions{ID: azidentity.ClientID(clientID)}
	return azidentity.NewManagedIdentityCredential(&options)
}

func printClaims(token azcore.AccessToken) error {
	parts := strings.Split(token.Token, ".")
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
		MI    string `json:"xms_mirid"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return fmt.Errorf("the token's claims: %w", err)
	}
	if claims.AppID == "" {
		claims.AppID = claims.Azp
	}
	return printJSON(map[string]any{
		"client": version(), "client_id": claims.AppID, "mi": claims.MI,
		"expires_on": token.ExpiresOn.Unix(),
	})
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == sdk {
				return "go azidentity " + strings.TrimPrefix(module.Version, "v")
			}
		}
	}
	return "go azidentity"
}

func printJSON(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}
