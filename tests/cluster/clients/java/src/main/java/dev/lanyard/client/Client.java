// The Azure SDK for Java, as a program in a pod uses it.
//
// In: `token [--client-id ID] [--resource R]` or `secret --vault URL --name N [--client-id ID]`; the
// JVM's trust store says whom to trust. Out: one JSON object; never a token. A failure is the SDK's
// own message and exit code 1. Blocks on the SDK's requests.
package dev.lanyard.client;

import com.azure.core.credential.AccessToken;
import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.core.util.CoreUtils;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.identity.ManagedIdentityCredentialBuilder;
import com.azure.json.JsonProviders;
import com.azure.json.JsonReader;
import com.azure.json.JsonWriter;
import com.azure.security.keyvault.secrets.SecretClientBuilder;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;

public final class Client {
    private static final String SDK = "azure-identity.properties";

    private Client() {}

    public static void main(String[] args) {
        try {
            System.out.println(json(run(args)));
            System.exit(0);
        } catch (Exception error) {
            System.err.println(error);
            System.exit(1);
        }
    }

    private static Map<String, Object> run(String[] args) throws Exception {
        if (args.length % 2 == 0) {
            throw new IllegalArgumentException("usage: client java token|secret [--flag value]…");
        }
        Map<String, String> flags = new HashMap<>();
        for (int i = 1; i < args.length; i += 2) {
            flags.put(args[i], args[i + 1]);
        }
        TokenCredential credential = credential(flags.get("--client-id"));
        return switch (args[0]) {
            case "token" -> token(
                    credential, flags.getOrDefault("--resource", "https://vault.azure.net"));
            case "secret" -> secret(credential, flags.get("--vault"), flags.get("--name"));
            default -> throw new IllegalArgumentException(args[0] + ": token or secret");
        };
    }

    /** What users write: the default chain, or one identity by its client id. */
    private static TokenCredential credential(String clientId) {
        return clientId == null
                ? new DefaultAzureCredentialBuilder().build()
                : new ManagedIdentityCredentialBuilder().clientId(clientId).build();
    }

    private static Map<String, Object> token(TokenCredential credential, String resource)
            throws Exception {
        TokenRequestContext asked = new TokenRequestContext().addScopes(resource + "/.default");
        AccessToken got = credential.getTokenSync(asked);
        byte[] payload = Base64.getUrlDecoder().decode(got.getToken().split("\\.")[1]);
        Map<String, Object> claims;
        try (JsonReader reader =
                JsonProviders.createReader(new String(payload, StandardCharsets.UTF_8))) {
            claims = reader.readMap(JsonReader::readUntyped);
        }
        Map<String, Object> said = new LinkedHashMap<>();
        said.put("client", version());
        said.put("client_id", claims.getOrDefault("appid", claims.get("azp")));
        said.put("mi", claims.get("xms_mirid"));
        said.put("expires_on", got.getExpiresAt().toEpochSecond());
        return said;
    }

    private static Map<String, Object> secret(TokenCredential credential, String vault, String name) {
        var client = new SecretClientBuilder().vaultUrl(vault).credential(credential).buildClient();
        Map<String, Object> said = new LinkedHashMap<>();
        said.put("client", version());
        said.put("value", client.getSecret(name).getValue());
        return said;
    }

    private static String version() {
        return "java azure-identity " + CoreUtils.getProperties(SDK).get("version");
    }

    private static String json(Map<String, Object> said) throws Exception {
        StringWriter text = new StringWriter();
        try (JsonWriter writer = JsonProviders.createWriter(text)) {
            writer.writeMap(said, JsonWriter::writeUntyped);
        }
        return text.toString();
    }
}
