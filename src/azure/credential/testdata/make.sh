#!/bin/sh
# Makes the files beside it anew, once and for all: the keys are nobody's. Needs OpenSSL 3.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
days='-days 36500'
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/root.key" -out "$work/root.crt" $days -subj '/CN=root' 2>/dev/null
openssl req -newkey rsa:2048 -nodes -keyout "$work/leaf.key" -out "$work/leaf.csr" -subj '/CN=payments' 2>/dev/null
openssl x509 -req -in "$work/leaf.csr" -CA "$work/root.crt" -CAkey "$work/root.key" -CAcreateserial -out "$work/leaf.crt" $days 2>/dev/null
export_as() {
  name=$1
  shift
  openssl pkcs12 -export -inkey "$work/leaf.key" -in "$work/leaf.crt" -certfile "$work/root.crt" -out "$work/p12" -passout 'pass:gehört mir' "$@"
  openssl base64 -in "$work/p12" -out "$name.p12.b64"
}
export_as modern
export_as legacy -legacy
export_as triple-des -legacy -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1
export_as without-mac -nomac
export_as plain -keypbe NONE -certpbe NONE
export_as aes128-sha512 -keypbe AES-128-CBC -certpbe AES-128-CBC -macalg sha512
export_as aes192-sha384 -keypbe AES-192-CBC -certpbe AES-192-CBC -macalg sha384
export_as rc2-128 -legacy -keypbe PBE-SHA1-2DES -certpbe PBE-SHA1-RC2-128
export_as pbes2-des3 -keypbe DES-EDE3-CBC -certpbe DES-EDE3-CBC
openssl pkcs12 -export -nokeys -in "$work/leaf.crt" -out "$work/p12" -passout 'pass:gehört mir'
openssl base64 -in "$work/p12" -out certificate-only.p12.b64
export_as costly -iter 3000000
openssl x509 -in "$work/leaf.crt" -out leaf.pem
openssl genrsa -out weak.pem 1024 2>/dev/null
openssl pkey -in "$work/leaf.key" -aes256 -passout pass:x -out encrypted.pem
openssl rsa -in "$work/leaf.key" -aes256 -traditional -passout pass:x -out encrypted-pkcs1.pem 2>/dev/null
openssl rsa -in "$work/leaf.key" -traditional -out pkcs1.pem 2>/dev/null
openssl pkcs12 -export -inkey "$work/leaf.key" -in "$work/leaf.crt" -out "$work/p12" -passout pass:
openssl base64 -in "$work/p12" -out empty-password.p12.b64
openssl ecparam -name prime256v1 -genkey -noout -out "$work/ec.key"
openssl req -x509 -new -key "$work/ec.key" -out "$work/ec.crt" $days -subj '/CN=ec'
openssl pkcs12 -export -inkey "$work/ec.key" -in "$work/ec.crt" -out "$work/p12" -passout pass:x
openssl base64 -in "$work/p12" -out ec.p12.b64
