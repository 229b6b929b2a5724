"""Runs in a granted pod: unmodified Azure clients must get the pod's own identity and its secret.

In: the expectations as JSON in argv[1] (client_id, object_id, resource_id, secret, vault_url; without: selectors that this
dialect does not have).
Out: a line for each client; the first wrong token or error ends it with a traceback.
"""

import asyncio
import base64
import json
import sys

import azure.identity as sync
import azure.identity.aio as aio
from azure.keyvault.secrets import SecretClient
from azure.keyvault.secrets.aio import SecretClient as AsyncSecretClient

WANTED = json.loads(sys.argv[1])
SCOPE = "https://vault.azure.net/.default"

# Every way of asking that must end at the same identity.
WAYS = {
    "ManagedIdentityCredential()": lambda m: m.ManagedIdentityCredential(),
    "ManagedIdentityCredential(client_id)": lambda m: m.ManagedIdentityCredential(
        client_id=WANTED["client_id"]
    ),
    "ManagedIdentityCredential(CLIENT_ID in capitals)": lambda m: m.ManagedIdentityCredential(
        client_id=WANTED["client_id"].upper()
    ),
    "ManagedIdentityCredential(object_id)": lambda m: m.ManagedIdentityCredential(
        identity_config={"object_id": WANTED["object_id"]}
    ),
    "ManagedIdentityCredential(resource_id)": lambda m: m.ManagedIdentityCredential(
        identity_config={"resource_id": WANTED["resource_id"]}
    ),
    "DefaultAzureCredential()": lambda m: m.DefaultAzureCredential(),
    "DefaultAzureCredential(client id)": lambda m: m.DefaultAzureCredential(
        managed_identity_client_id=WANTED["client_id"]
    ),
}
WAYS = {
    way: make
    for way, make in WAYS.items()
    if not any(selector in way for selector in WANTED.get("without", []))
}


def check(way, token):
    """The token's claims are the wanted identity's."""
    payload = token.token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    got = (claims["oid"], claims["appid"], claims["aud"])
    wanted = (WANTED["object_id"], WANTED["client_id"], "https://vault.azure.net")
    assert got == wanted, f"{way}: {got} instead of {wanted}"
    # MSAL adds expires_in to its own clock, in whole seconds.
    assert abs(token.expires_on - claims["exp"]) < 60, f"{way}: {token.expires_on}, {claims}"
    print(f"ok: {way}")


def check_secret(way, secret):
    """The vault gave the secret."""
    assert secret.value == WANTED["secret"], f"{way}: the secret is {secret.value!r}"
    print(f"ok: {way}")


def synchronous():
    for way, make in WAYS.items():
        with make(sync) as credential:
            check(way, credential.get_token(SCOPE))
    with sync.DefaultAzureCredential() as credential:
        with SecretClient(WANTED["vault_url"], credential) as client:
            check_secret("SecretClient", client.get_secret("db-password"))


async def asynchronous():
    for way, make in WAYS.items():
        async with make(aio) as credential:
            check(f"aio.{way}", await credential.get_token(SCOPE))
    async with aio.DefaultAzureCredential() as credential:
        async with AsyncSecretClient(WANTED["vault_url"], credential) as client:
            check_secret("aio.SecretClient", await client.get_secret("db-password"))


synchronous()
asyncio.run(asynchronous())
