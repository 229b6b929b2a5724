// The Azure SDK for JavaScript, as a program in a pod uses it.
//
// In: `token [--client-id ID] [--resource R]` or `secret --vault URL --name N [--client-id ID]`;
// the file in NODE_EXTRA_CA_CERTS says whom to trust. Out: one JSON object; never a token. A
// failure is the SDK's own message and exit code 1. Blocks on the SDK's requests.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { DefaultAzureCredential, ManagedIdentityCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    "client-id": { type: "string" },
    resource: { type: "string", default: "https://vault.azure.net" },
    vault: { type: "string" },
    name: { type: "string" },
  },
});

// What users write: the default chain, or one identity by its client id.
function credential() {
  const clientId = values["client-id"];
  return clientId ? new ManagedIdentityCredential({ clientId }) : new DefaultAzureCredential();
}

function version() {
  const file = new URL("node_modules/@azure/identity/package.json", import.meta.url);
  return `node @azure/identity ${JSON.parse(readFileSync(file, "utf8")).version}`;
}

async function token() {
  const got = await credential().getToken(`${values.resource}/.default`);
  const claims = JSON.parse(Buffer.from(got.token.split(".")[1], "base64url").toString());
  return {
    client: version(),
    client_id: claims.appid ?? claims.azp,
    mi: claims.xms_mirid,
    expires_on: Math.floor(got.expiresOnTimestamp / 1000),
  };
}

async function secret() {
  const got = await new SecretClient(values.vault, credential()).getSecret(values.name);
  return { client: version(), value: got.value };
}

const commands = { token, secret };
try {
  const command = commands[positionals[0]];
  if (!command) throw new Error("usage: client node token|secret [flags]");
  console.log(JSON.stringify(await command()));
  process.exit(0);
} catch (error) {
  console.error(String(error?.message ?? error));
  process.exit(1);
}
