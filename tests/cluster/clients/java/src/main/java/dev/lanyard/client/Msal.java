package dev.lanyard.client;

import com.microsoft.aad.msal4j.IAuthenticationResult;
import com.microsoft.aad.msal4j.ManagedIdentityApplication;
import com.microsoft.aad.msal4j.ManagedIdentityId;
import com.microsoft.aad.msal4j.ManagedIdentityParameters;
import java.time.ZoneOffset;

/** MSAL alone. */
final class Msal {
    private Msal() {}

    private static ManagedIdentityId id(Client.Selector by) {
        if (by.clientId() != null) {
            return ManagedIdentityId.userAssignedClientId(by.clientId());
        }
        if (by.objectId() != null) {
            return ManagedIdentityId.userAssignedObjectId(by.objectId());
        }
        return by.resourceId() == null
                ? ManagedIdentityId.systemAssigned()
                : ManagedIdentityId.userAssignedResourceId(by.resourceId());
    }

    static Client.Token token(Client.Selector by, String resource) throws Exception {
        var application = ManagedIdentityApplication.builder(id(by)).build();
        var asked = ManagedIdentityParameters.builder(resource).build();
        IAuthenticationResult got = application.acquireTokenForManagedIdentity(asked).get();
        return new Client.Token(got.accessToken(), got.expiresOnDate().toInstant().atOffset(ZoneOffset.UTC));
    }
}
