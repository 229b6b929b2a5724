"""The Azure SDK for Python and plain MSAL, as a program in a pod uses them.

In: `azure|msal token [--client-id ID] [--resource R]` or `… secret --vault URL --name N [--client-id
ID]`, or `claims` with IMDS's answer on standard input (for curl); the files in REQUESTS_CA_BUNDLE
and SSL_CERT_FILE say whom to trust. Out: one JSON object; never a token. A failure is the library's
own message and exit code 1. Blocks on the library's requests.
"""

import argparse
import base64
import json
import sys
import time


def claims(token):
    """What the token says of itself; nobody's signature is checked here."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def described(client, token, expires_on):
    said = claims(token)
    return {
        "client": client,
        "client_id": said.get("appid") or said.get("azp"),
        "mi": said.get("xms_mirid"),
        "expires_on": int(expires_on),
    }


class AzureIdentity:
    """What users write: the default chain, or one identity by its client id."""

    def __init__(self, client_id):
        import azure.identity

        self.name = f"python azure-identity {azure.identity.__version__}"
        if client_id:
            self.credential = azure.identity.ManagedIdentityCredential(client_id=client_id)
        else:
            self.credential = azure.identity.DefaultAzureCredential()

    def token(self, resource):
        got = self.credential.get_token(f"{resource}/.default")
        return got.token, got.expires_on

    def secret(self, vault, name):
        from azure.keyvault.secrets import SecretClient

        return SecretClient(vault, self.credential).get_secret(name).value


class Msal:
    """MSAL alone, with the default identity or one by its client id; the vault by plain HTTPS."""

    def __init__(self, client_id):
        import msal
        import requests

        self.name = f"python msal {msal.__version__}"
        self.session = requests.Session()
        identity = (
            msal.UserAssignedManagedIdentity(client_id=client_id)
            if client_id
            else msal.SystemAssignedManagedIdentity()
        )
        self.client = msal.ManagedIdentityClient(identity, http_client=self.session)

    def token(self, resource):
        asked = time.time()
        got = self.client.acquire_token_for_client(resource=resource)
        if "access_token" not in got:
            sys.exit(f"msal: {got.get('error')}: {got.get('error_description')}")
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


def main():
    if sys.argv[1:2] == ["claims"]:
        got = json.load(sys.stdin)
        return described(sys.argv[2], got["access_token"], got["expires_on"])
    parser = argparse.ArgumentParser(prog="client")
    parser.add_argument("library", choices=["azure", "msal"])
    parser.add_argument("command", choices=["token", "secret"])
    parser.add_argument("--client-id")
    parser.add_argument("--resource", default="https://vault.azure.net")
    parser.add_argument("--vault")
    parser.add_argument("--name")
    asked = parser.parse_args()
    client = (Msal if asked.library == "msal" else AzureIdentity)(asked.client_id)
    if asked.command == "token":
        return described(client.name, *client.token(asked.resource))
    return {"client": client.name, "value": client.secret(asked.vault, asked.name)}


try:
    print(json.dumps(main()))
except Exception as error:  # The message is what a user would see.
    sys.exit(f"{type(error).__name__}: {error}")
