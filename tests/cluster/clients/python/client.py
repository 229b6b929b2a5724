"""The Azure SDK for Python, its asynchronous twin and plain MSAL, as programs in a pod use them.

In: `azure|aio|msal token [--client-id ID | --object-id ID | --resource-id ID] [--resource R] [--after FILE]`, azure and
aio also `chain`, azure and msal also `secret --vault URL --name N`; or `claims` with IMDS's answer on standard input
(for curl); the files in REQUESTS_CA_BUNDLE and SSL_CERT_FILE say whom to trust. Out: one JSON object; never a token. A
failure is the library's own message, how long it took, and exit code 1. Blocks on the library's requests, and on FILE
until it is there; FILE.PID says that it waits.
"""

import argparse
import asyncio
import base64
import json
import os
import sys
import time


def claims(token):
    """What the token says of itself; nobody's signature is checked here."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def described(token, expires_on):
    said = claims(token)
    return {
        "client_id": said.get("appid") or said.get("azp"),
        "object_id": said.get("oid"),
        "mi": said.get("xms_mirid"),
        "expires_on": int(expires_on),
    }


def managed(module, asked):
    """What users write: the default chain, or one identity by one of its ids."""
    if asked.client_id:
        return module.ManagedIdentityCredential(client_id=asked.client_id)
    for name in ("object_id", "resource_id"):
        if value := getattr(asked, name):
            return module.ManagedIdentityCredential(identity_config={name: value})
    return module.DefaultAzureCredential()


class AzureIdentity:
    """The synchronous credentials."""

    def __init__(self, asked):
        import azure.identity

        self.name = f"python azure-identity {azure.identity.__version__}"
        self.credential = managed(azure.identity, asked)

    def token(self, resource):
        got = self.credential.get_token(f"{resource}/.default")
        return got.token, got.expires_on

    def secret(self, vault, name):
        from azure.keyvault.secrets import SecretClient

        return SecretClient(vault, self.credential).get_secret(name).value


class Aio:
    """The asynchronous ones, which have a protocol code of their own."""

    def __init__(self, asked):
        import azure.identity
        import azure.identity.aio

        self.name = f"python azure.identity.aio {azure.identity.__version__}"
        self.asked = asked

    def token(self, resource):
        import azure.identity.aio

        async def ask():
            async with managed(azure.identity.aio, self.asked) as credential:
                return await credential.get_token(f"{resource}/.default")

        got = asyncio.run(ask())
        return got.token, got.expires_on


class Msal:
    """MSAL alone, with the default identity or one by one of its ids; the vault by plain HTTPS."""

    def __init__(self, asked):
        import msal
        import requests

        self.name = f"python msal {msal.__version__}"
        self.session = requests.Session()
        ids = {"client_id": asked.client_id, "object_id": asked.object_id, "resource_id": asked.resource_id}
        ids = {name: value for name, value in ids.items() if value}
        identity = msal.UserAssignedManagedIdentity(**ids) if ids else msal.SystemAssignedManagedIdentity()
        self.client = msal.ManagedIdentityClient(identity, http_client=self.session)

    def token(self, resource):
        asked = time.time()
        got = self.client.acquire_token_for_client(resource=resource)
        if "access_token" not in got:
            raise RuntimeError(f"msal: {got.get('error')}: {got.get('error_description')}")
        return got["access_token"], asked + got["expires_in"]

    def secret(self, vault, name):
        token, _ = self.token("https://vault.azure.net")
        answer = self.session.get(
            f"{vault}/secrets/{name}",
            params={"api-version": "7.4"},
            headers={"Authorization": f"Bearer {token}"},
            timeout=20,
        )
        answer.raise_for_status()
        return answer.json()["value"]


LIBRARIES = {"azure": AzureIdentity, "aio": Aio, "msal": Msal}


def chained(client, resource):
    """Whether the default chain goes on to the credential after the managed identity."""
    try:
        token, _ = client.token(resource)
        return {"went_on": token == os.environ["NEXT_TOKEN"]}
    except Exception as error:  # The chain's own, whatever its kind.
        return {"went_on": False, "message": f"{type(error).__name__}: {error}"}


def parsed():
    parser = argparse.ArgumentParser(prog="client")
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("command", choices=["token", "chain", "secret"])
    parser.add_argument("--client-id")
    parser.add_argument("--object-id")
    parser.add_argument("--resource-id")
    parser.add_argument("--resource", default="https://vault.azure.net")
    parser.add_argument("--after")
    parser.add_argument("--vault")
    parser.add_argument("--name")
    return parser.parse_args()


def main():
    global began
    if sys.argv[1:2] == ["claims"]:
        got = json.load(sys.stdin)
        return {"client": sys.argv[2], **described(got["access_token"], got["expires_on"])}
    asked = parsed()
    client = LIBRARIES[asked.library](asked)
    if asked.after:
        open(f"{asked.after}.{os.getpid()}", "w").close()
        while not os.path.exists(asked.after):
            time.sleep(0.005)
    began = time.monotonic()
    said = {"client": client.name}
    if asked.command == "token":
        said |= described(*client.token(asked.resource))
    elif asked.command == "chain":
        said |= chained(client, asked.resource)
    else:
        said["value"] = client.secret(asked.vault, asked.name)
    return said | {"milliseconds": round((time.monotonic() - began) * 1000)}


began = time.monotonic()
try:
    print(json.dumps(main()))
except Exception as error:  # The message is what a user would see.
    took = round((time.monotonic() - began) * 1000)
    sys.exit(f"{type(error).__name__}: {error}\nafter {took} ms")
