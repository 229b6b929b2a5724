package main

import (
	"context"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
)

func msalToken(ctx context.Context, which selector, resource string) (token, error) {
	id := managedidentity.SystemAssigned()
	switch {
	case which.clientID != "":
		id = managedidentity.UserAssignedClientID(which.clientID)
	case which.objectID != "":
		id = managedidentity.UserAssignedObjectID(which.objectID)
	case which.resourceID != "":
		id = managedidentity.UserAssignedResourceID(which.resourceID)
	}
	client, err := managedidentity.New(id)
	if err != nil {
		return token{}, err
	}
	got, err := client.AcquireToken(ctx, resource)
	return token{got.AccessToken, got.ExpiresOn}, err
}
