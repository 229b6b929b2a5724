// The Azure SDK for JavaScript and MSAL for Node, as programs in a pod use them.
//
// In: `identity|msal token [--client-id ID | --object-id ID | --resource-id ID] [--resource R] [--after FILE]`, identity also
// `chain` and `secret --vault URL --name N`; the file in NODE_EXTRA_CA_CERTS says whom to trust. Out: one JSON object;
// never a token. A failure is the library's own message, how long it took, and exit code 1. Blocks on the library's
// requests, and on FILE until it is there; FILE.PID says that it waits.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";

import { DefaultAzureCredential, ManagedIdentityCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";
import { ManagedIdentityApplication } from "@azure/msal-node";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    "client-id": { type: "string" },
    "object-id": { type: "string" },
    "resource-id": { type: "string" },
    resource: { type: "string", default: "https://vault.azure.net" },
    after: { type: "string" },
    vault: { type: "string" },
    name: { type: "string" },
  },
});
const [library, command] = positionals;
const [clientId, objectId, resourceId] = ["client-id", "object-id", "resource-id"].map((flag) => values[flag]);

// What users write: the default chain, or one identity by one of its ids.
function credential() {
  if (clientId) return new ManagedIdentityCredential({ clientId });
  if (objectId) return new ManagedIdentityCredential({ objectId });
  if (resourceId) return new ManagedIdentityCredential({ resourceId });
  return new DefaultAzureCredential();
}

async function byIdentity() {
  const got = await credential().getToken(`${values.resource}/.default`);
  return [got.token, got.expiresOnTimestamp / 1000];
}

async function byMsal() {
  const ids = { userAssignedClientId: clientId, userAssignedObjectId: objectId, userAssignedResourceId: resourceId };
  const managedIdentityIdParams = Object.fromEntries(Object.entries(ids).filter(([, id]) => id));
  const application = new ManagedIdentityApplication({ managedIdentityIdParams });
  const got = await application.acquireToken({ resource: values.resource });
  return [got.accessToken, got.expiresOn.getTime() / 1000];
}

const libraries = { identity: ["@azure/identity", byIdentity], msal: ["@azure/msal-node", byMsal] };

function version() {
  const name = libraries[library][0];
  const file = new URL(`node_modules/${name}/package.json`, import.meta.url);
  return `node ${name} ${JSON.parse(readFileSync(file, "utf8")).version}`;
}

async function token() {
  const [jwt, expires] = await libraries[library][1]();
  const claims = JSON.parse(Buffer.from(jwt.split(".")[1], "base64url").toString());
  return {
    client_id: claims.appid ?? claims.azp,
    object_id: claims.oid,
    mi: claims.xms_mirid,
    expires_on: Math.floor(expires),
  };
}

// Whether the default chain goes on to the credential after the managed identity.
async function chain() {
  try {
    const [jwt] = await byIdentity();
    return { went_on: jwt === process.env.NEXT_TOKEN };
  } catch (error) {
    return { went_on: false, message: String(error?.message ?? error) };
  }
}

async function secret() {
  const got = await new SecretClient(values.vault, credential()).getSecret(values.name);
  return { value: got.value };
}

const commands = library === "identity" ? { token, chain, secret } : { token };
let began = performance.now();
const took = () => Math.round(performance.now() - began);
try {
  const act = libraries[library] && commands[command];
  if (!act) throw new Error("usage: client node|msal-node token|chain|secret [flags]");
  if (values.after) writeFileSync(`${values.after}.${process.pid}`, "");
  while (values.after && !existsSync(values.after)) await setTimeout(5);
  began = performance.now();
  const said = await act();
  console.log(JSON.stringify({ client: version(), ...said, milliseconds: took() }));
  process.exit(0);
} catch (error) {
  console.error(`${error?.message ?? error}\nafter ${took()} ms`);
  process.exit(1);
}
