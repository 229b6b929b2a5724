package main

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

// azidentityCredential is what users write: the default chain, or one identity by one of its ids.
func azidentityCredential(which selector) (azcore.TokenCredential, error) {
	var id azidentity.ManagedIDKind
	switch {
	case which.clientID != "":
		id = azidentity.ClientID(which.clientID)
	case which.objectID != "":
		id = azidentity.ObjectID(which.objectID)
	case which.resourceID != "":
		id = azidentity.ResourceID(which.resourceID)
	default:
		return azidentity.NewDefaultAzureCredential(nil)
	}
	return azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ID: id})
}

func azidentityToken(ctx context.Context, which selector, resource string) (token, error) {
	credential, err := azidentityCredential(which)
	if err != nil {
		return token{}, err
	}
	got, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
	return token{got.Token, got.ExpiresOn}, err
}

// azidentityChain is the default chain, whose managed identity is named by AZURE_CLIENT_ID.
func azidentityChain(ctx context.Context, resource string) (token, error) {
	return azidentityToken(ctx, selector{}, resource)
}

func azidentitySecret(ctx context.Context, which selector, vault, name string) (string, error) {
	credential, err := azidentityCredential(which)
	if err != nil {
		return "", err
	}
	client, err := azsecrets.NewClient(vault, credential, nil)
	if err != nil {
		return "", err
	}
	secret, err := client.GetSecret(ctx, name, "", nil)
	if err != nil {
		return "", err
	}
	return *secret.Value, nil
}
