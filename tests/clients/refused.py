"""Runs in a pod without an identity: clients must learn so at once, and chains must go on.

In: seconds that count as a hang in argv[1] (an SDK that retries takes longer than 20 s).
Out: a line for each client; a token, a hang or a broken chain ends it with a traceback.
"""

import asyncio
import sys
import time

import azure.identity as sync
import azure.identity.aio as aio
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

HANG = float(sys.argv[1])
SCOPE = "https://vault.azure.net/.default"


class Next:
    """The credential after the managed identity in a chain."""

    def get_token(self, *scopes, **kwargs):
        return AccessToken("the next one's", 0)

    def close(self):
        pass


class AsyncNext(Next):
    """The same for asyncio."""

    async def get_token(self, *scopes, **kwargs):
        return AccessToken("the next one's", 0)

    async def close(self):
        pass


def told(way, start, error):
    """The client gave up quickly, whatever it called that."""
    took = time.monotonic() - start
    assert took < HANG, f"{way} took {took:.1f} s"
    print(f"ok: {way} ({type(error).__name__} after {took:.2f} s)")


def synchronous():
    for make in (sync.ManagedIdentityCredential, sync.DefaultAzureCredential):
        start = time.monotonic()
        try:
            with make() as credential:
                raise AssertionError(f"{make.__name__} got {credential.get_token(SCOPE)!r:.40}")
        except ClientAuthenticationError as error:
            told(make.__name__, start, error)
    start = time.monotonic()
    chain = sync.ChainedTokenCredential(sync.ManagedIdentityCredential(), Next())
    assert chain.get_token(SCOPE).token == "the next one's"
    told("ChainedTokenCredential goes on", start, None)


async def asynchronous():
    for make in (aio.ManagedIdentityCredential, aio.DefaultAzureCredential):
        start = time.monotonic()
        try:
            async with make() as credential:
                token = await credential.get_token(SCOPE)
                raise AssertionError(f"aio.{make.__name__} got {token!r:.40}")
        except ClientAuthenticationError as error:
            told(f"aio.{make.__name__}", start, error)
    start = time.monotonic()
    async with aio.ChainedTokenCredential(aio.ManagedIdentityCredential(), AsyncNext()) as chain:
        assert (await chain.get_token(SCOPE)).token == "the next one's"
    told("aio.ChainedTokenCredential goes on", start, None)


synchronous()
asyncio.run(asynchronous())
