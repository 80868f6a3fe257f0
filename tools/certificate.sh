#!/bin/sh
# Makes a self-signed certificate for trying out wss. What is there already stays.
# usage: tools/certificate.sh [FOLDER]   writes fullchain.pem and privkey.pem (default: deploy/tls)
set -eu
folder=${1:-$(dirname "$0")/../deploy/tls}

if [ -e "$folder/fullchain.pem" ] && [ -e "$folder/privkey.pem" ]; then
    exit
fi
if [ -e "$folder/fullchain.pem" ] || [ -e "$folder/privkey.pem" ]; then
    echo "certificate: $folder has one of fullchain.pem and privkey.pem, and needs both" >&2
    exit 1
fi
mkdir -p "$folder"
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=localhost \
    -addext "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1" \
    -keyout "$folder/privkey.pem" -out "$folder/fullchain.pem" 2>/dev/null
chmod 644 "$folder/fullchain.pem"
echo "certificate: made a self-signed one for localhost in $folder; for trying only" >&2
