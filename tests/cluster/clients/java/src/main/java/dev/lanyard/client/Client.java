// The Azure SDK for Java and MSAL for Java, as programs in a pod use them.
//
// In: `identity|msal token [--client-id ID | --object-id ID | --resource-id ID] [--resource R] [--after FILE]`, identity
// also `chain` and `secret --vault URL --name N`; the JVM's trust store says whom to trust. Out: one JSON object;
// never a token. A failure is the library's own message, how long it took, and exit code 1. Blocks on the library's
// requests, and on FILE until it is there; FILE.PID says that it waits.
package dev.lanyard.client;

import com.azure.json.JsonProviders;
import com.azure.json.JsonReader;
import com.azure.json.JsonWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.OffsetDateTime;
import java.util.Base64;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;

public final class Client {
    /** What a library gave. */
    record Token(String jwt, OffsetDateTime expires) {}

    /** What a user-assigned identity is named by; at most one is there. */
    record Selector(String clientId, String objectId, String resourceId) {}

    private static long began = System.nanoTime();

    private Client() {}

    public static void main(String[] args) {
        try {
            Map<String, Object> said = run(args);
            said.put("milliseconds", took());
            System.out.println(json(said));
            System.exit(0);
        } catch (Exception error) {
            System.err.println(error + "\nafter " + took() + " ms");
            System.exit(1);
        }
    }

    private static long took() {
        return (System.nanoTime() - began) / 1_000_000;
    }

    private static Map<String, Object> run(String[] args) throws Exception {
        if (args.length < 2 || args.length % 2 == 1) {
            throw new IllegalArgumentException("usage: client java|msal4j token|chain|secret [--flag value]…");
        }
        Map<String, String> flags = new HashMap<>();
        for (int i = 2; i < args.length; i += 2) {
            flags.put(args[i], args[i + 1]);
        }
        var selector = new Selector(flags.get("--client-id"), flags.get("--object-id"), flags.get("--resource-id"));
        String resource = flags.getOrDefault("--resource", "https://vault.azure.net");
        if (flags.containsKey("--after")) {
            Path after = Path.of(flags.get("--after"));
            Files.createFile(Path.of(after + "." + ProcessHandle.current().pid()));
            while (!Files.exists(after)) {
                Thread.sleep(5);
            }
        }
        began = System.nanoTime();
        Map<String, Object> said = new LinkedHashMap<>();
        switch (args[0] + " " + args[1]) {
            case "identity token" -> {
                said.put("client", version("azure-identity"));
                describe(said, Identity.token(selector, resource));
            }
            case "msal token" -> {
                said.put("client", version("msal4j"));
                describe(said, Msal.token(selector, resource));
            }
            case "identity chain" -> {
                said.put("client", version("azure-identity"));
                chain(said, selector, resource);
            }
            case "identity secret" -> {
                said.put("client", version("azure-identity"));
                said.put("value", Identity.secret(selector, flags.get("--vault"), flags.get("--name")));
            }
            default -> throw new IllegalArgumentException(args[0] + " has no " + args[1]);
        }
        return said;
    }

    /** Adds whether the default chain goes on to the credential after the managed identity. */
    private static void chain(Map<String, Object> said, Selector selector, String resource) {
        try {
            Token got = Identity.token(selector, resource);
            said.put("went_on", got.jwt().equals(System.getenv("NEXT_TOKEN")));
        } catch (RuntimeException error) {
            said.put("went_on", false);
            said.put("message", error.toString());
        }
    }

    /** Adds what the token says of itself; nobody's signature is checked here. */
    private static void describe(Map<String, Object> said, Token got) throws Exception {
        byte[] payload = Base64.getUrlDecoder().decode(got.jwt().split("\\.")[1]);
        Map<String, Object> claims;
        try (JsonReader reader = JsonProviders.createReader(new String(payload, StandardCharsets.UTF_8))) {
            claims = reader.readMap(JsonReader::readUntyped);
        }
        said.put("client_id", claims.getOrDefault("appid", claims.get("azp")));
        said.put("object_id", claims.get("oid"));
        said.put("mi", claims.get("xms_mirid"));
        said.put("expires_on", got.expires().toEpochSecond());
    }

    /** As the build wrote it down: a jar of jars has lost the libraries' own manifests. */
    private static String version(String library) throws Exception {
        Properties versions = new Properties();
        try (var text = Client.class.getResourceAsStream("/versions.properties")) {
            versions.load(text);
        }
        return "java " + library + " " + versions.getProperty(library);
    }

    private static String json(Map<String, Object> said) throws Exception {
        StringWriter text = new StringWriter();
        try (JsonWriter writer = JsonProviders.createWriter(text)) {
            writer.writeMap(said, JsonWriter::writeUntyped);
        }
        return text.toString();
    }
}
