# Asks for a token all the time, and says each time when and what came of it: no token, no secret.
#
# In: how many requests a second. Out: on standard output `TIME start`, then for each request
# `TIME STATUS CLIENT_ID-or-words`, status 0 where nothing answered. A new connection each time. Never ends.
import http.client
import json
import sys
import time

PATH = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net'
PERIOD = 1 / float(sys.argv[1])


def ask():
    connection = http.client.HTTPConnection('169.254.169.254', timeout=2)
    try:
        headers = {'Metadata': 'true', 'Connection': 'close'}
        connection.request('GET', PATH, headers=headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())
        word = said.get('client_id') or str(said.get('error'))
        return f'{answer.status} {word.replace(" ", "_")}'
    except ValueError:
        return f'{answer.status} no_JSON'
    except (OSError, http.client.HTTPException) as error:
        return f'0 {type(error).__name__}'
    finally:
        connection.close()


print(f'{time.time():.4f} start', flush=True)
while True:
    began = time.time()
    came = ask()
    print(f'{time.time():.4f} {came}', flush=True)
    time.sleep(max(0, began + PERIOD - time.time()))
