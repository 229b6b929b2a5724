# A token from the pod's endpoint, checked by a library that is neither ours nor the simulator's: PyJWT.
#
# In: resource, client id, further parameters of the request; /azure/ca.pem: whom to trust. Out: the claims as one
# JSON object with the answer's `expires_on` and the signature's `alg`; never the token. Signature, audience, issuer
# and life are checked against what Entra ID publishes; a failure is the library's own message.
import json
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, '/clients/python/packages')
import jwt

IMDS = 'http://169.254.169.254/metadata/identity/oauth2/token'
AUTHORITY = 'https://login.microsoftonline.com'
# The clocks of Azure and of the machine may differ.
LEEWAY = 300
TRUST = ssl.create_default_context(cafile='/azure/ca.pem')


def get(url, **more):
    with urllib.request.urlopen(urllib.request.Request(url, **more), timeout=20, context=TRUST) as answer:
        return json.load(answer)


def main(resource, client_id, more):
    query = urllib.parse.urlencode({'api-version': '2018-02-01', 'resource': resource, 'client_id': client_id})
    try:
        said = get(f'{IMDS}?{query}{more}', headers={'Metadata': 'true'})
    except urllib.error.HTTPError as error:
        sys.exit(f'{error.code} {error.read(2000).decode()}')
    assert said['resource'] == resource, said['resource']
    token = said['access_token']
    unchecked = jwt.decode(token, options={'verify_signature': False})
    version = 'v2.0/' if unchecked['ver'] == '2.0' else ''
    document = get(f'{AUTHORITY}/{unchecked["tid"]}/{version}.well-known/openid-configuration')
    keys = jwt.PyJWKSet.from_dict(get(document['jwks_uri']))
    header = jwt.get_unverified_header(token)
    assert header['alg'] == 'RS256', header
    claims = jwt.decode(
        token, keys[header['kid']].key, algorithms=['RS256'], audience=resource, issuer=document['issuer'],
        leeway=LEEWAY, options={'require': ['aud', 'iss', 'exp', 'nbf', 'iat']},
    )
    assert abs(int(said['expires_on']) - claims['exp']) <= LEEWAY, (said['expires_on'], claims['exp'])
    return claims | {'expires_on': int(said['expires_on'])}


print(json.dumps(main(sys.argv[1], sys.argv[2], ''.join(sys.argv[3:]))))
