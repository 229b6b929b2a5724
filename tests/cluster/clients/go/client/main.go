// The Azure SDK for Go, MSAL for Go and the adal of programs from before, as programs in a pod use them.
//
// In: `azidentity|msal|adal token [--client-id ID | --object-id ID | --resource-id ID] [--resource R] [--after FILE]`;
// azidentity also `chain` and `secret --vault URL --name N`; the file in SSL_CERT_FILE says whom to trust. Out: one
// JSON object; never a token. A failure is the library's own message, how long it took, and exit code 1. Blocks on
// the library's requests, two minutes at most, and on FILE until it is there; FILE.PID says that
// it waits.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// selector is what a user-assigned identity is named by; at most one is set.
type selector struct {
	clientID, objectID, resourceID string
}

// library is a client: how it gets a token, how its chain's next credential is reached, how it reads a secret.
type library struct {
	module string
	name   string
	token  func(context.Context, selector, string) (token, error)
	chain  func(context.Context, string) (token, error)
	secret func(ctx context.Context, which selector, vault, name string) (string, error)
}

var libraries = map[string]library{
	"azidentity": {
		"github.com/Azure/azure-sdk-for-go/sdk/azidentity", "go azidentity", azidentityToken, azidentityChain, azidentitySecret,
	},
	"msal": {"github.com/AzureAD/microsoft-authentication-library-for-go", "go msal", msalToken, nil, nil},
	"adal": {"github.com/Azure/go-autorest/autorest/adal", "go adal", adalToken, nil, nil},
}

func main() {
	began := time.Now()
	said, err := run(os.Args[1:], &began)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\nafter %d ms\n", err, time.Since(began).Milliseconds())
		os.Exit(1)
	}
	said["milliseconds"] = time.Since(began).Milliseconds()
	_ = json.NewEncoder(os.Stdout).Encode(said)
}

// run sets `began` anew when it starts to ask.
func run(args []string, began *time.Time) (map[string]any, error) {
	if len(args) < 2 {
		return nil, fmt.Errorf("usage: client go|msal-go|adal token|chain|secret [flags]")
	}
	library, known := libraries[args[0]]
	if !known {
		return nil, fmt.Errorf("no library %s", args[0])
	}
	flags := flag.NewFlagSet("client "+args[0], flag.ExitOnError)
	var which selector
	flags.StringVar(&which.clientID, "client-id", "", "client id of a user-assigned identity")
	flags.StringVar(&which.objectID, "object-id", "", "its object id")
	flags.StringVar(&which.resourceID, "resource-id", "", "its ARM id")
	resource := flags.String("resource", "https://vault.azure.net", "what the token is for")
	after := flags.String("after", "", "a file that must be there first")
	vault := flags.String("vault", "", "the vault's URL")
	name := flags.String("name", "", "the secret's name")
	_ = flags.Parse(args[2:])
	if *after != "" {
		if err := os.WriteFile(fmt.Sprintf("%s.%d", *after, os.Getpid()), nil, 0o600); err != nil {
			return nil, err
		}
		for _, err := os.Stat(*after); err != nil; _, err = os.Stat(*after) {
			time.Sleep(5 * time.Millisecond)
		}
	}
	*began = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	said := map[string]any{"client": library.version()}
	switch {
	case args[1] == "token":
		got, err := library.token(ctx, which, *resource)
		if err != nil {
			return nil, err
		}
		return said, got.describe(said)
	case args[1] == "chain" && library.chain != nil:
		got, err := library.chain(ctx, *resource)
		said["went_on"] = err == nil && got.jwt == os.Getenv("NEXT_TOKEN")
		if err != nil {
			said["message"] = err.Error()
		}
		return said, nil
	case args[1] == "secret" && library.secret != nil:
		value, err := library.secret(ctx, which, *vault, *name)
		said["value"] = value
		return said, err
	}
	return nil, fmt.Errorf("%s has no %s", args[0], args[1])
}
