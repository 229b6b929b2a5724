package dev.lanyard.client;

import com.azure.core.credential.AccessToken;
import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.identity.ManagedIdentityCredentialBuilder;
import com.azure.security.keyvault.secrets.SecretClientBuilder;

/** The Azure SDK. */
final class Identity {
    private Identity() {}

    /** What users write: the default chain, or one identity by one of its ids. */
    private static TokenCredential credential(Client.Selector by) {
        if (by.clientId() == null && by.objectId() == null && by.resourceId() == null) {
            return new DefaultAzureCredentialBuilder().build();
        }
        var builder = new ManagedIdentityCredentialBuilder();
        if (by.clientId() != null) {
            builder.clientId(by.clientId());
        } else if (by.objectId() != null) {
            builder.objectId(by.objectId());
        } else {
            builder.resourceId(by.resourceId());
        }
        return builder.build();
    }

    static Client.Token token(Client.Selector by, String resource) {
        TokenRequestContext asked = new TokenRequestContext().addScopes(resource + "/.default");
        AccessToken got = credential(by).getTokenSync(asked);
        return new Client.Token(got.getToken(), got.getExpiresAt());
    }

    static String secret(Client.Selector by, String vault, String name) {
        var client = new SecretClientBuilder().vaultUrl(vault).credential(credential(by)).buildClient();
        return client.getSecret(name).getValue();
    }
}
