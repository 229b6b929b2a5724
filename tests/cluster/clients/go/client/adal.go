package main

import (
	"context"
	"errors"

	"github.com/Azure/go-autorest/autorest/adal"
)

// adalToken asks as controllers of that time do; adal finds IMDS or MSI_ENDPOINT by itself.
func adalToken(ctx context.Context, which selector, resource string) (token, error) {
	if which.objectID != "" {
		return token{}, errors.New("adal cannot name an identity by its object id")
	}
	principal, err := adal.NewServicePrincipalTokenFromManagedIdentity(resource, &adal.ManagedIdentityOptions{
		ClientID: which.clientID, IdentityResourceID: which.resourceID,
	})
	if err != nil {
		return token{}, err
	}
	if err := principal.EnsureFreshWithContext(ctx); err != nil {
		return token{}, err
	}
	return token{principal.OAuthToken(), principal.Token().Expires()}, nil
}
